package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
)

const speechPath = "/v1/audio/speech"

var usual = []string{
	"-spoken=" + speechPath + "=input,instructions", "-spoken=/batch=requests.*.input",
	"-upload-path=/v1/audio/voices", "-max-upload-bytes=1000", "-max-spoken-characters=5000",
}

func newTestChecker(t testing.TB, arguments ...string) *checker {
	t.Helper()
	settings, err := parse(append(append([]string{}, usual...), arguments...))
	if err != nil {
		t.Fatal(err)
	}
	rules, err := newRuleSet(settings)
	if err != nil {
		t.Fatal(err)
	}
	return newChecker(settings, rules, newMetrics(prometheus.NewRegistry()))
}

// The rules take a fifth of a second to read: tests that need no settings of their own share them.
var shared *checker

func sharedChecker(t testing.TB) *checker {
	t.Helper()
	if shared == nil {
		shared = newTestChecker(t)
	}
	return shared
}

type sent struct {
	method, path, body string
	headers            map[string]string
}

func (sent sent) check() *auth.CheckRequest {
	method := sent.method
	headers := map[string]string{
		":authority": "tts.example.com", "user-agent": "OpenAI/Python 1.50.0", "accept": "*/*",
		"x-request-id": "request-1", "authorization": "Bearer secret-token",
	}
	if sent.body != "" {
		headers["content-type"] = "application/json"
		headers["content-length"] = fmt.Sprint(len(sent.body))
	}
	if method == "" {
		method = "POST"
	}
	for name, value := range sent.headers {
		if value == "" {
			delete(headers, name)
			continue
		}
		headers[name] = value
	}
	path := sent.path
	if path == "" {
		path = speechPath
	}
	return &auth.CheckRequest{Attributes: &auth.AttributeContext{
		Source: &auth.AttributeContext_Peer{Address: &core.Address{
			Address: &core.Address_SocketAddress{SocketAddress: &core.SocketAddress{Address: "10.0.0.1"}}}},
		Request: &auth.AttributeContext_Request{Http: &auth.AttributeContext_HttpRequest{
			Method: method, Path: path, Host: "tts.example.com", Protocol: "HTTP/1.1",
			Headers: headers, RawBody: []byte(sent.body)}},
	}}
}

// verdict gives the status and the code with which a request is refused; 200 where it is not.
func verdict(t testing.TB, checker *checker, sent sent) (int, string) {
	t.Helper()
	response, err := checker.Check(context.Background(), sent.check())
	if err != nil {
		t.Fatal(err)
	}
	denied := response.GetDeniedResponse()
	if denied == nil {
		return 200, ""
	}
	var body struct{ Error struct{ Code string } }
	if err := json.Unmarshal([]byte(denied.Body), &body); err != nil {
		t.Fatal(err)
	}
	return int(denied.Status.Code), body.Error.Code
}

func speech(text string) string {
	body, _ := json.Marshal(map[string]any{"model": "tts", "voice": "alloy", "input": text})
	return string(body)
}

func TestRequestsAndTheirVerdicts(t *testing.T) {
	attack := `1' UNION SELECT username, password FROM users-- `
	cases := []struct {
		name   string
		sent   sent
		status int
		code   string
	}{
		{"a health check", sent{method: "GET", path: "/healthz"}, 200, ""},
		{"speech", sent{body: speech("Good morning.")}, 200, ""},
		{"speech about SQL", sent{body: speech(attack)}, 200, ""},
		{"speech about shells", sent{body: speech("Run $(cat /etc/passwd); rm -rf / <script>")}, 200, ""},
		{"the same in another field", sent{body: `{"input":"a","voice":` + quoted(attack) + `}`}, 403, "request_refused"},
		{"the same in a field of a field", sent{body: `{"input":"a","voice":{"input":` + quoted(attack) + `}}`}, 403, "request_refused"},
		{"the same as a spoken list", sent{body: `{"input":[` + quoted(attack) + `]}`}, 403, "request_refused"},
		{"the same as a key", sent{body: `{"input":"a",` + quoted(attack) + `:"b"}`}, 403, "request_refused"},
		{"the same in the query", sent{path: speechPath + "?input=1%27%20UNION%20SELECT%20username,password%20FROM%20users--%20", body: speech("a")}, 403, "request_refused"},
		{"the same in a spoken field elsewhere", sent{path: "/elsewhere", body: speech(attack)}, 403, "request_refused"},
		{"the same in a header", sent{headers: map[string]string{"referer": attack}, body: speech("a")}, 403, "request_refused"},
		{"a spoken field with a trailing slash", sent{path: speechPath + "/", body: speech(attack)}, 200, ""},
		{"a spoken field in a list", sent{path: "/batch", body: `{"requests":[{"input":"a"},{"input":` + quoted(attack) + `}]}`}, 200, ""},
		{"an attack beside one in a list", sent{path: "/batch", body: `{"requests":[{"voice":` + quoted(attack) + `}]}`}, 403, "request_refused"},
		{"5000 characters", sent{body: speech(strings.Repeat("字", 5000))}, 200, ""},
		{"5001 characters", sent{body: speech(strings.Repeat("字", 5001))}, 400, "text_too_long"},
		{"a tab, line ends and a page break", sent{body: speech("a\tb\r\nc\fd")}, 200, ""},
		{"a null character", sent{body: `{"input":"a\u0000"}`}, 400, "control_characters"},
		{"an escape character", sent{body: `{"input":"a\u001b[31m"}`}, 400, "control_characters"},
		{"half a character", sent{body: `{"input":"a\ud83d"}`}, 400, "invalid_encoding"},
		{"a whole one in two halves", sent{body: `{"input":"a\ud83d\ude00"}`}, 200, ""},
		{"a replacement character", sent{body: speech("a\uFFFD")}, 200, ""},
		{"a body that is not UTF-8", sent{body: "{\"input\":\"\xff\"}"}, 400, "invalid_encoding"},
		{"a body that is not JSON", sent{body: `{"input":`}, 400, "invalid_json"},
		{"a key that is there twice", sent{body: `{"voice":` + quoted(attack) + `,"voice":"b"}`}, 400, "invalid_json"},
		{"deep nesting", sent{body: strings.Repeat("[", 17) + strings.Repeat("]", 17)}, 400, "invalid_json"},
		{"large other fields", sent{body: `{"voice":` + quoted(strings.Repeat("a", 17000)) + `}`}, 413, "body_too_large"},
		{"a body longer than was seen", sent{headers: map[string]string{partialHeader: "true"}, body: speech("a")}, 413, "body_too_large"},
		{"a form", sent{headers: map[string]string{"content-type": "application/x-www-form-urlencoded"}, body: "input=a"}, 415, "unsupported_content_type"},
		{"JSON by another name", sent{headers: map[string]string{"content-type": "text/plain"}, body: speech("a")}, 415, "unsupported_content_type"},
		{"JSON in another encoding", sent{headers: map[string]string{"content-type": "application/json; charset=utf-7"}, body: speech("a")}, 415, "unsupported_content_type"},
		{"a body of no type", sent{headers: map[string]string{"content-type": ""}, body: speech("a")}, 415, "unsupported_content_type"},
		{"a WebSocket", sent{method: "GET", path: speechPath + "/stream", headers: map[string]string{"upgrade": "websocket", "connection": "upgrade"}}, 200, ""},
		{"a body that hides behind an upgrade", sent{headers: map[string]string{"upgrade": "websocket", "content-length": "9"}}, 400, "invalid_upgrade"},
		{"an upload", upload("audio/wav", "1000"), 200, ""},
		{"an upload with fields", upload("multipart/form-data; boundary=x", "1000"), 200, ""},
		{"an upload that is too large", upload("audio/wav", "1001"), 413, "body_too_large"},
		{"a large upload of no length", partial(upload("audio/wav", "")), 411, "length_required"},
		{"a small upload of no length", upload("audio/wav", ""), 200, ""},
		{"an upload elsewhere", sent{headers: map[string]string{"content-type": "audio/wav"}, body: "RIFF"}, 415, "unsupported_content_type"},
		{"an attack in the query of an upload", withPath(upload("audio/wav", "10"), "/v1/audio/voices?name=%3Cscript%3Ealert(1)%3C/script%3E"), 403, "request_refused"},
	}
	checker := sharedChecker(t)
	for _, each := range cases {
		t.Run(each.name, func(t *testing.T) {
			status, code := verdict(t, checker, each.sent)
			if status != each.status || code != each.code {
				t.Errorf("is %d %q, expected %d %q", status, code, each.status, each.code)
			}
		})
	}
}

func quoted(text string) string {
	encoded, _ := json.Marshal(text)
	return string(encoded)
}

func upload(contentType, length string) sent {
	return sent{path: "/v1/audio/voices", body: "RIFF \x00\xff <script>alert(1)</script>",
		headers: map[string]string{"content-type": contentType, "content-length": length}}
}

func partial(sent sent) sent {
	sent.headers[partialHeader] = "true"
	return sent
}

func withPath(sent sent, path string) sent {
	sent.path = path
	return sent
}

func TestWithoutTheExemptionTextsAreRefused(t *testing.T) {
	settings, err := parse(nil)
	if err != nil {
		t.Fatal(err)
	}
	checker := &checker{settings: settings, rules: sharedChecker(t).rules,
		metrics: sharedChecker(t).metrics, turns: make(chan struct{}, 1)}
	status, _ := verdict(t, checker, sent{body: speech(`1' UNION SELECT username, password FROM users-- `)})
	if status != 403 {
		t.Errorf("is %d", status)
	}
}

func TestDetectionRefusesNothing(t *testing.T) {
	checker := newTestChecker(t, "-detection-only")
	for _, each := range []sent{
		{path: speechPath + "?q=%3Cscript%3Ealert(1)%3C/script%3E", body: speech("a")},
		{body: "no JSON"},
	} {
		if status, _ := verdict(t, checker, each); status != 200 {
			t.Errorf("%v is %d", each, status)
		}
	}
}

func TestTheThresholdDecides(t *testing.T) {
	attack := sent{path: speechPath + "?q=%3Cscript%3Ealert(1)%3C/script%3E", body: speech("a")}
	if status, _ := verdict(t, newTestChecker(t, "-anomaly-threshold=1000"), attack); status != 200 {
		t.Errorf("is %d with a threshold that nothing reaches", status)
	}
}

func TestARefusalTellsTheRequestAndNoRule(t *testing.T) {
	response, err := sharedChecker(t).Check(context.Background(),
		sent{path: speechPath + "?q=%3Cscript%3Ealert(1)%3C/script%3E", body: speech("a")}.check())
	if err != nil {
		t.Fatal(err)
	}
	body := response.GetDeniedResponse().Body
	if !strings.Contains(body, "request-1") || strings.Contains(body, "941") || strings.Contains(body, "script") {
		t.Error(body)
	}
}

func TestACheckEndsWithItsDeadline(t *testing.T) {
	checker := newTestChecker(t)
	for range cap(checker.turns) {
		checker.turns <- struct{}{}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := checker.Check(ctx, sent{body: speech("a")}.check()); err == nil {
		t.Error("is answered")
	}
}

func BenchmarkCheck(b *testing.B) {
	novel := strings.Repeat("那天夜里，雨一直下个不停。He remembered the harbour. ", 300)
	checker := newTestChecker(b, "-max-spoken-characters=100000")
	for name, each := range map[string]sent{
		"health": {method: "GET", path: "/healthz"},
		"short":  {body: speech("Good morning, 早上好。")},
		"novel":  {body: speech(novel)},
		"fields": {body: `{"input":"a","voice":` + quoted(novel[:15000]) + `}`},
	} {
		b.Run(name, func(b *testing.B) {
			for range b.N {
				verdict(b, checker, each)
			}
		})
	}
}
