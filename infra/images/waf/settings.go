package main

import (
	"flag"
	"fmt"
	"strings"
)

// spokenFields has, by path, the fields of a JSON body whose text is to be spoken. A field is named
// by the keys that lead to it, with `*` for every element of a list: `requests.*.input`.
type spokenFields map[string][]string

func (spoken spokenFields) String() string { return fmt.Sprint(map[string][]string(spoken)) }

func (spoken spokenFields) Set(text string) error {
	path, fields, found := strings.Cut(text, "=")
	if !found || !strings.HasPrefix(path, "/") || fields == "" {
		return fmt.Errorf("%q is not of the form /path=field,field", text)
	}
	spoken[path] = strings.Split(fields, ",")
	return nil
}

type settings struct {
	grpcAddress         string
	httpAddress         string
	paranoiaLevel       int
	anomalyThreshold    int
	detectionOnly       bool
	maxSpokenCharacters int
	maxFieldsBytes      int
	uploadPath          string
	maxUploadBytes      int64
	spoken              spokenFields
}

func parse(arguments []string) (settings, error) {
	made := settings{spoken: spokenFields{}}
	flags := flag.NewFlagSet("waf", flag.ContinueOnError)
	flags.StringVar(&made.grpcAddress, "grpc", ":9191", "address of the checks")
	flags.StringVar(&made.httpAddress, "http", ":8081", "address of health and metrics")
	flags.IntVar(&made.paranoiaLevel, "paranoia-level", 1, "of the Core Rule Set, 1 to 4")
	flags.IntVar(&made.anomalyThreshold, "anomaly-threshold", 5, "score from which on to refuse")
	flags.BoolVar(&made.detectionOnly, "detection-only", false, "log what would be refused")
	flags.IntVar(&made.maxSpokenCharacters, "max-spoken-characters", 100_000, "of a spoken field")
	flags.IntVar(&made.maxFieldsBytes, "max-fields-bytes", 16<<10, "of a body without its spoken fields")
	flags.StringVar(&made.uploadPath, "upload-path", "", "where audio is uploaded to, and what is below")
	flags.Int64Var(&made.maxUploadBytes, "max-upload-bytes", 32<<20, "of an upload")
	flags.Var(made.spoken, "spoken", "/path=field,field; may be repeated")
	if err := flags.Parse(arguments); err != nil {
		return settings{}, err
	}
	return made, made.check()
}

func (made settings) check() error {
	if made.paranoiaLevel < 1 || made.paranoiaLevel > 4 {
		return fmt.Errorf("paranoia-level is %d; allowed: 1 to 4", made.paranoiaLevel)
	}
	for name, value := range map[string]int64{
		"anomaly-threshold":     int64(made.anomalyThreshold),
		"max-spoken-characters": int64(made.maxSpokenCharacters),
		"max-fields-bytes":      int64(made.maxFieldsBytes),
		"max-upload-bytes":      made.maxUploadBytes,
	} {
		if value < 1 {
			return fmt.Errorf("%s is %d; allowed: 1 or more", name, value)
		}
	}
	return nil
}
