// Writes the SDK of a Pulumi package for a language, from its schema: what `pulumi package gen-sdk`
// does, without the language hosts that it asks for it.
//
//	package-sdk <schema.json> <nodejs|go> <folder>
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	gocodegen "github.com/pulumi/pulumi/pkg/v3/codegen/go"
	"github.com/pulumi/pulumi/pkg/v3/codegen/nodejs"
	"github.com/pulumi/pulumi/pkg/v3/codegen/schema"
)

const tool = "package-sdk"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(arguments []string) error {
	if len(arguments) != 3 {
		return fmt.Errorf("usage: %s <schema.json> <nodejs|go> <folder>", tool)
	}
	pkg, err := bind(arguments[0])
	if err != nil {
		return err
	}
	files, err := generate(pkg, arguments[1])
	if err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(arguments[2], name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func bind(path string) (*schema.Package, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var spec schema.PackageSpec
	if err := json.Unmarshal(text, &spec); err != nil {
		return nil, err
	}
	pkg, diagnostics, err := schema.BindSpec(spec, schema.NewNullLoader(), schema.ValidationOptions{})
	if err != nil {
		return nil, err
	}
	if diagnostics.HasErrors() {
		return nil, diagnostics
	}
	return pkg, nil
}

func generate(pkg *schema.Package, language string) (map[string][]byte, error) {
	switch language {
	case "nodejs":
		return nodejs.GeneratePackage(tool, pkg, nil, nil, true, nil)
	case "go":
		return gocodegen.GeneratePackage(tool, pkg, nil)
	}
	return nil, fmt.Errorf("%s: no SDK is generated for this language", language)
}
