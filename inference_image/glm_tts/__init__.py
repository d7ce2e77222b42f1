"""GLM-TTS in torch: zero-shot speech in Chinese and English, streamed, many streams at once.

In the order in which a request meets them:

- `text`: text → text ids, a list for each segment;
- `features`, `speech_tokenizer`, `speaker`, `voice`: a reference clip → what the model needs of it;
- `llama`, `sampling`, `decoder`: text ids → speech ids, 25 for each second of speech;
- `blocks`: which part is spoken when;
- `dit`, `flow`: speech ids → mel frames, 50 for each second;
- `hift`, `vocos`: mel frames → samples;
- `schedule`, `engine`: many requests at once;
- `checkpoint`: the published weights, and a bundle of them that loads fast.

All but `text`, `speaker` and `checkpoint` need torch, numpy and the standard library only.
"""
