package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxDepth is how many objects and lists may be inside one another.
const maxDepth = 16

// refusal is a verdict of the firewall's own limits or of the rules, as the client is told it.
type refusal struct {
	status  int
	code    string
	message string
}

func refuse(status int, code, format string, values ...any) *refusal {
	return &refusal{status, code, fmt.Sprintf(format, values...)}
}

// inspectable gives what the rules are to see of a body: nothing of an upload, and of JSON all but
// its spoken fields, which meet limits of their own instead. It is nil without a body.
func inspectable(settings settings, request *request) ([]byte, *refusal) {
	if request.headers["upgrade"] != "" {
		return nil, checkUpgrade(request)
	}
	if !request.hasBody() {
		return nil, nil
	}
	if settings.isUpload(request) {
		return nil, checkUpload(settings, request)
	}
	if !isJSON(request.headers["content-type"]) {
		return nil, refuse(http.StatusUnsupportedMediaType, "unsupported_content_type",
			"the body must be JSON in UTF-8 with Content-Type: application/json.")
	}
	if request.isPartial {
		return nil, refuse(http.StatusRequestEntityTooLarge, "body_too_large",
			"the request's body is larger than %d bytes.", len(request.body))
	}
	rest, refused := withoutSpoken(request.body, settings.spoken[request.route()],
		settings.maxSpokenCharacters)
	if refused == nil && len(rest) > settings.maxFieldsBytes {
		return nil, refuse(http.StatusRequestEntityTooLarge, "body_too_large",
			"the body's fields besides the text to speak are larger than %d bytes.",
			settings.maxFieldsBytes)
	}
	return rest, refused
}

// checkUpgrade refuses a body in a request to become a WebSocket: Envoy shows none of it here.
func checkUpgrade(request *request) *refusal {
	length := request.headers["content-length"]
	isPlain := request.method == http.MethodGet || request.method == http.MethodConnect
	if isPlain && (length == "" || length == "0") && request.headers["transfer-encoding"] == "" {
		return nil
	}
	return refuse(http.StatusBadRequest, "invalid_upgrade",
		"a request to upgrade the connection must be GET without a body.")
}

func (settings settings) isUpload(request *request) bool {
	route := request.route()
	isBelow := route == settings.uploadPath || strings.HasPrefix(route, settings.uploadPath+"/")
	if settings.uploadPath == "" || !isBelow {
		return false
	}
	kind, _, err := mime.ParseMediaType(request.headers["content-type"])
	return err == nil && (kind == "multipart/form-data" || strings.HasPrefix(kind, "audio/"))
}

// checkUpload limits an upload by the length that it states; the proxies hold it to that. One that
// states none is let through where all of it was seen.
func checkUpload(settings settings, request *request) *refusal {
	stated, given := request.headers["content-length"]
	if !given {
		if request.isPartial {
			return refuse(http.StatusLengthRequired, "length_required",
				"an upload larger than %d bytes must state its Content-Length.", len(request.body))
		}
		stated = strconv.Itoa(len(request.body))
	}
	length, err := strconv.ParseInt(stated, 10, 64)
	if err != nil || length < 0 {
		return refuse(http.StatusBadRequest, "invalid_length", "Content-Length must be a number.")
	}
	if length > settings.maxUploadBytes {
		return refuse(http.StatusRequestEntityTooLarge, "body_too_large",
			"the upload is larger than %d bytes.", settings.maxUploadBytes)
	}
	return nil
}

func isJSON(contentType string) bool {
	kind, parameters, err := mime.ParseMediaType(contentType)
	charset := parameters["charset"]
	return err == nil && kind == "application/json" && len(parameters) <= 1 &&
		(len(parameters) == 0 || strings.EqualFold(charset, "utf-8"))
}

// withoutSpoken empties the texts of the spoken fields, wherever they are as they should be; what
// stands in for such a text, an object for instance, stays.
func withoutSpoken(body []byte, spoken []string, maxCharacters int) ([]byte, *refusal) {
	if !utf8.Valid(body) {
		return nil, refuse(http.StatusBadRequest, "invalid_encoding", "the body is not UTF-8.")
	}
	if !json.Valid(body) {
		return nil, refuse(http.StatusBadRequest, "invalid_json", "the body is not JSON.")
	}
	walk := &walk{decoder: json.NewDecoder(bytes.NewReader(body)), body: body, spoken: spoken,
		maxCharacters: maxCharacters}
	if err := walk.value(nil); err != nil {
		var refused *refusalError
		if errors.As(err, &refused) {
			return nil, refused.refusal
		}
		return nil, refuse(http.StatusBadRequest, "invalid_json", "the body is not JSON.")
	}
	return walk.rest(), nil
}

type refusalError struct{ refusal *refusal }

func (refused *refusalError) Error() string { return refused.refusal.message }

// walk goes through a JSON body once and notes where its spoken texts are.
type walk struct {
	decoder       *json.Decoder
	body          []byte
	spoken        []string
	maxCharacters int
	texts         [][2]int64
}

func (walk *walk) value(path []string) error {
	before := walk.decoder.InputOffset()
	token, err := walk.decoder.Token()
	if err != nil {
		return err
	}
	switch token := token.(type) {
	case json.Delim:
		if len(path) >= maxDepth {
			return refused("invalid_json", "the body is nested deeper than %d levels.", maxDepth)
		}
		if token == '{' {
			return walk.object(path)
		}
		return walk.list(path)
	case string:
		if walk.isSpoken(path) {
			return walk.text(path, token, before)
		}
	}
	return nil
}

func (walk *walk) object(path []string) error {
	seen := map[string]bool{}
	for walk.decoder.More() {
		key, err := walk.decoder.Token()
		if err != nil {
			return err
		}
		name, isText := key.(string)
		if !isText || seen[name] {
			return refused("invalid_json", "the body has a key twice.")
		}
		seen[name] = true
		if err := walk.value(append(path[:len(path):len(path)], name)); err != nil {
			return err
		}
	}
	_, err := walk.decoder.Token()
	return err
}

func (walk *walk) list(path []string) error {
	for walk.decoder.More() {
		if err := walk.value(append(path[:len(path):len(path)], "*")); err != nil {
			return err
		}
	}
	_, err := walk.decoder.Token()
	return err
}

func (walk *walk) isSpoken(path []string) bool {
	name := strings.Join(path, ".")
	for _, field := range walk.spoken {
		if field == name {
			return true
		}
	}
	return false
}

func (walk *walk) text(path []string, text string, before int64) error {
	start := before + int64(bytes.IndexByte(walk.body[before:], '"'))
	end := walk.decoder.InputOffset()
	if problem := problemOf(text, walk.body[start:end], walk.maxCharacters); problem != nil {
		return refused(problem.code, "%s %s", strings.Join(path, "."), problem.message)
	}
	walk.texts = append(walk.texts, [2]int64{start, end})
	return nil
}

func (walk *walk) rest() []byte {
	rest, from := make([]byte, 0, len(walk.body)), int64(0)
	for _, text := range walk.texts {
		rest = append(append(rest, walk.body[from:text[0]]...), `""`...)
		from = text[1]
	}
	return append(rest, walk.body[from:]...)
}

func refused(code, format string, values ...any) error {
	return &refusalError{refuse(http.StatusBadRequest, code, format, values...)}
}

// problemOf says what makes a text unfit to be spoken, whoever reads it: too many characters, a
// control character that no text has, or half a surrogate pair.
func problemOf(text string, raw []byte, maxCharacters int) *refusal {
	if count := utf8.RuneCountInString(text); count > maxCharacters {
		return refuse(0, "text_too_long", "has %d characters; at most %d are allowed in one request.",
			count, maxCharacters)
	}
	if strings.ContainsFunc(text, isForbidden) {
		return refuse(0, "control_characters", "has control characters.")
	}
	// The decoder puts U+FFFD where half a pair stands.
	replaced := strings.Count(text, "\uFFFD")
	meant := bytes.Count(raw, []byte("\uFFFD")) + bytes.Count(bytes.ToLower(raw), []byte(`\ufffd`))
	if replaced > meant {
		return refuse(0, "invalid_encoding", "has half a character.")
	}
	return nil
}

// Tabs, line ends and page breaks are in real texts, and U+0085 is a line end too.
func isForbidden(character rune) bool {
	switch {
	case character >= '\t' && character <= '\r', character == 0x85:
		return false
	case character < ' ':
		return true
	}
	return character >= 0x7f && character <= 0x9f
}
