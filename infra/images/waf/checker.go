package main

import (
	"context"
	"encoding/json"
	"log/slog"
	"runtime"
	"strconv"
	"strings"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	envoytype "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	grpcstatus "google.golang.org/grpc/status"
)

const (
	// Envoy sets it, whatever the client sent.
	partialHeader   = "x-envoy-auth-partial-body"
	requestIDHeader = "x-request-id"
	maxLoggedPath   = 256
)

// request is what a check says about a request. The names of headers are in lower case.
type request struct {
	id, client, method, host, path, protocol string
	headers                                  map[string]string
	body                                     []byte
	isPartial                                bool
}

func requestOf(check *auth.CheckRequest) *request {
	attributes := check.GetAttributes()
	from := attributes.GetRequest().GetHttp()
	made := &request{
		id:        from.GetHeaders()[requestIDHeader],
		client:    attributes.GetSource().GetAddress().GetSocketAddress().GetAddress(),
		method:    from.GetMethod(),
		host:      from.GetHost(),
		path:      from.GetPath(),
		protocol:  from.GetProtocol(),
		headers:   make(map[string]string, len(from.GetHeaders())),
		body:      from.GetRawBody(),
		isPartial: from.GetHeaders()[partialHeader] == "true",
	}
	if len(made.body) == 0 {
		made.body = []byte(from.GetBody())
	}
	for name, value := range from.GetHeaders() {
		if !strings.HasPrefix(name, ":") && name != partialHeader && name != "host" {
			made.headers[name] = value
		}
	}
	return made
}

func (request *request) hasBody() bool {
	if len(request.body) > 0 {
		return true
	}
	length := request.headers["content-length"]
	return length != "" && length != "0"
}

// route is the path without query and trailing slash.
func (request *request) route() string {
	path, _, _ := strings.Cut(request.path, "?")
	if trimmed := strings.TrimSuffix(path, "/"); trimmed != "" {
		return trimmed
	}
	return path
}

type checker struct {
	auth.UnimplementedAuthorizationServer
	settings settings
	rules    *ruleSet
	metrics  *metrics
	// Rules are evaluated on as many requests at a time as there are cores: more would each take
	// longer, and all miss the proxy's time-out together.
	turns chan struct{}
}

func newChecker(settings settings, rules *ruleSet, metrics *metrics) *checker {
	return &checker{settings: settings, rules: rules, metrics: metrics,
		turns: make(chan struct{}, runtime.GOMAXPROCS(0))}
}

// Check answers Envoy. An error, and not a verdict, is what its failure mode then decides on.
func (checker *checker) Check(ctx context.Context, check *auth.CheckRequest) (
	response *auth.CheckResponse, err error) {
	request := requestOf(check)
	defer func() {
		if caught := recover(); caught != nil {
			slog.Error("failed", "request_id", request.id, "error", caught)
			response, err = nil, grpcstatus.Error(codes.Internal, "the inspection failed")
		}
		if err != nil {
			checker.metrics.count(failed)
		}
	}()
	select {
	case checker.turns <- struct{}{}:
		defer func() { <-checker.turns }()
	case <-ctx.Done():
		return nil, grpcstatus.FromContextError(ctx.Err()).Err()
	}
	started := time.Now()
	refused, matched, err := checker.inspect(request)
	checker.metrics.observe(time.Since(started))
	if err != nil {
		return nil, grpcstatus.Error(codes.Internal, err.Error())
	}
	return checker.answer(request, refused, matched), nil
}

func (checker *checker) inspect(request *request) (*refusal, []int, error) {
	body, refused := inspectable(checker.settings, request)
	if refused != nil {
		return refused, nil, nil
	}
	matched, status, err := checker.rules.evaluate(request, body)
	if err != nil || status == 0 {
		return nil, matched, err
	}
	return refuse(status, "request_refused", "the request was refused by the firewall."), matched, nil
}

func (checker *checker) answer(request *request, refused *refusal, matched []int) *auth.CheckResponse {
	switch {
	case refused == nil:
		checker.metrics.count(allowed)
		return allowance()
	case checker.settings.detectionOnly:
		checker.log("would refuse", request, refused, matched)
		checker.metrics.refused(detected, refused.code, matched)
		return allowance()
	}
	checker.log("refused", request, refused, matched)
	checker.metrics.refused(denied, refused.code, matched)
	return denial(request, refused)
}

// log says nothing that the client wrote but method and path: no query, headers or body.
func (checker *checker) log(message string, request *request, refused *refusal, matched []int) {
	route := request.route()
	if len(route) > maxLoggedPath {
		route = route[:maxLoggedPath]
	}
	slog.Warn(message, "request_id", request.id, "method", request.method, "host", request.host,
		"path", route, "status", refused.status, "code", refused.code, "rules", matched)
}

func allowance() *auth.CheckResponse {
	return &auth.CheckResponse{
		Status:       &status.Status{Code: int32(codes.OK)},
		HttpResponse: &auth.CheckResponse_OkResponse{OkResponse: &auth.OkHttpResponse{}},
	}
}

func denial(request *request, refused *refusal) *auth.CheckResponse {
	return &auth.CheckResponse{
		Status: &status.Status{Code: int32(codes.PermissionDenied)},
		HttpResponse: &auth.CheckResponse_DeniedResponse{DeniedResponse: &auth.DeniedHttpResponse{
			Status: &envoytype.HttpStatus{Code: envoytype.StatusCode(refused.status)},
			Headers: []*core.HeaderValueOption{
				header("content-type", "application/json"), header(requestIDHeader, request.id),
			},
			Body: string(errorBody(request.id, refused)),
		}},
	}
}

func header(name, value string) *core.HeaderValueOption {
	return &core.HeaderValueOption{
		Header:       &core.HeaderValue{Key: name, Value: value},
		AppendAction: core.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD,
	}
}

// errorBody has the form of OpenAI's errors. It tells no rule, which would help to get around it.
func errorBody(id string, refused *refusal) []byte {
	message := refused.message
	if id != "" {
		message += " Request id: " + strconv.Quote(id)
	}
	body, _ := json.Marshal(map[string]any{"error": map[string]any{
		"message": message,
		"type":    "invalid_request_error",
		"param":   nil,
		"code":    refused.code,
	}})
	return body
}
