// waf answers Envoy's external authorization checks (envoy.service.auth.v3) with the verdict of the
// OWASP Core Rule Set, evaluated by Coraza. It looks at requests only.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	auth "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
)

const (
	// Envoy sends the headers and the bounded body in one message. Of each proxy, no more than these
	// are in memory at a time; further checks wait in the proxy.
	maxMessageBytes       = 2 << 20
	maxConcurrentChecks   = 64
	shutdownSeconds       = 10
	readHeaderSeconds     = 5
	connectionIdleMinutes = 30
)

func main() {
	slog.SetDefault(slog.New(slog.NewJSONHandler(os.Stdout, nil)))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		slog.Error("ended", "error", err.Error())
		os.Exit(1)
	}
}

func run(ctx context.Context, arguments []string) error {
	settings, err := parse(arguments)
	if err != nil {
		return err
	}
	rules, err := newRuleSet(settings)
	if err != nil {
		return fmt.Errorf("reading the rules: %w", err)
	}
	registry := prometheus.NewRegistry()
	checker := newChecker(settings, rules, newMetrics(registry))
	state := &lifecycle{}
	checks, err := net.Listen("tcp", settings.grpcAddress)
	if err != nil {
		return err
	}
	operations, err := net.Listen("tcp", settings.httpAddress)
	if err != nil {
		return err
	}
	slog.Info("ready", "rules", rules.version, "paranoia_level", settings.paranoiaLevel,
		"detection_only", settings.detectionOnly)
	return serve(ctx, state, checks, operations, newGrpcServer(checker),
		newOperations(state, registry))
}

func newGrpcServer(checker *checker) *grpc.Server {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessageBytes),
		grpc.MaxConcurrentStreams(maxConcurrentChecks),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			MaxConnectionIdle: connectionIdleMinutes * time.Minute,
		}),
	)
	auth.RegisterAuthorizationServer(server, checker)
	return server
}

// serve answers until ctx ends, and ends with the last answer. Proxies that still send requests are
// what a pod's preStop hook is for.
func serve(ctx context.Context, state *lifecycle, checks, operations net.Listener,
	server *grpc.Server, handler http.Handler) error {
	failed := make(chan error, 2)
	operationsServer := &http.Server{
		Handler: handler, ReadHeaderTimeout: readHeaderSeconds * time.Second,
	}
	go func() { failed <- server.Serve(checks) }()
	go func() { failed <- operationsServer.Serve(operations) }()
	state.ready.Store(true)
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	state.ready.Store(false)
	killer := time.AfterFunc(shutdownSeconds*time.Second, server.Stop)
	server.GracefulStop()
	killer.Stop()
	return operationsServer.Close()
}
