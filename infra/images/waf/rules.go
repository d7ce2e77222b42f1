package main

import (
	"fmt"
	"io/fs"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"

	coreruleset "github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/types"
)

// Engine and limits, before the Core Rule Set. Response bodies, which are audio, are never read.
// What a body may be is decided in body.go, more strictly than by 920420 and 920480.
const engineDirectives = `
SecRuleEngine On
SecRequestBodyAccess On
SecResponseBodyAccess Off
SecAuditEngine Off
SecRequestBodyLimit %[1]d
SecRequestBodyInMemoryLimit %[1]d
SecRequestBodyLimitAction Reject
SecRequestBodyJsonDepthLimit %[2]d
SecArgumentsLimit %[3]d
SecRule REQUEST_HEADERS:Content-Type "@beginsWith application/json" "id:100001,phase:1,pass,t:none,t:lowercase,nolog,ctl:requestBodyProcessor=JSON"
SecRule REQBODY_ERROR "!@eq 0" "id:100002,phase:2,deny,t:none,status:400"
SecRule ARGUMENTS_LIMIT_REACHED "@eq 1" "id:100003,phase:2,deny,t:none,status:400"
SecAction "id:900990,phase:1,pass,t:none,nolog,setvar:tx.crs_setup_version=4250"
SecAction "id:900000,phase:1,pass,t:none,nolog,setvar:tx.blocking_paranoia_level=%[4]d"
SecAction "id:900110,phase:1,pass,t:none,nolog,setvar:tx.inbound_anomaly_score_threshold=%[5]d"
SecAction "id:900200,phase:1,pass,t:none,nolog,setvar:'tx.allowed_methods=GET HEAD POST PUT PATCH DELETE OPTIONS CONNECT'"
`

const laterDirectives = `
SecRuleRemoveById 920420 920480
`

const maxArguments = 500

// The rules that decide, and those that only add up the scores of others.
const (
	firstAttackRule = 911000
	lastAttackRule  = 944999
)

// A signed token has nothing in it that a rule could look for, and costs as much as a long header.
var bearerToken = regexp.MustCompile(`^Bearer [A-Za-z0-9_.-]+$`)

type ruleSet struct {
	waf     coraza.WAF
	version string
}

func newRuleSet(settings settings) (*ruleSet, error) {
	files, err := fs.Glob(coreruleset.FS, "@owasp_crs/REQUEST-*.conf")
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("the Core Rule Set has no request rules")
	}
	var directives strings.Builder
	fmt.Fprintf(&directives, engineDirectives, settings.maxFieldsBytes, maxDepth, maxArguments,
		settings.paranoiaLevel, settings.anomalyThreshold)
	for _, file := range files {
		fmt.Fprintf(&directives, "Include %s\n", file)
	}
	directives.WriteString(laterDirectives)
	waf, err := coraza.NewWAF(
		coraza.NewWAFConfig().WithRootFS(coreruleset.FS).WithDirectives(directives.String()))
	if err != nil {
		return nil, err
	}
	return &ruleSet{waf, versionOf("github.com/corazawaf/coraza-coreruleset/v4")}, nil
}

// versionOf gives the version of a module that this program was compiled with.
func versionOf(module string) string {
	if info, found := debug.ReadBuildInfo(); found {
		for _, dependency := range info.Deps {
			if dependency.Path == module {
				return dependency.Version
			}
		}
	}
	return ""
}

// evaluate says which rules match a request, and whether it is to be refused with which status.
// The body is what is left of it without its spoken fields.
func (rules *ruleSet) evaluate(request *request, body []byte) (matched []int, status int, err error) {
	tx := rules.waf.NewTransaction()
	defer func() {
		tx.ProcessLogging()
		if closing := tx.Close(); err == nil {
			err = closing
		}
	}()
	tx.ProcessConnection(request.client, 0, "", 0)
	tx.ProcessURI(request.path, request.method, request.protocol)
	tx.AddRequestHeader("Host", request.host)
	for name, value := range request.headers {
		switch {
		case name == "content-length" && body != nil:
			value = strconv.Itoa(len(body))
		case name == "authorization" && bearerToken.MatchString(value):
			continue
		}
		tx.AddRequestHeader(name, value)
	}
	interruption := tx.ProcessRequestHeaders()
	if interruption == nil && len(body) > 0 {
		interruption, _, err = tx.WriteRequestBody(body)
		if err != nil {
			return nil, 0, err
		}
	}
	if interruption == nil {
		interruption, err = tx.ProcessRequestBody()
		if err != nil {
			return nil, 0, err
		}
	}
	if interruption != nil {
		status = interruption.Status
	}
	return attackRules(tx.MatchedRules()), status, nil
}

func attackRules(matched []types.MatchedRule) []int {
	var ids []int
	seen := map[int]bool{}
	for _, match := range matched {
		id := match.Rule().ID()
		if id >= firstAttackRule && id <= lastAttackRule && match.Message() != "" && !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids
}
