package main

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Verdicts, as metrics name them.
const (
	allowed  = "allowed"
	denied   = "refused"
	detected = "detected"
	failed   = "failed"
)

type lifecycle struct{ ready atomic.Bool }

type metrics struct {
	requests *prometheus.CounterVec
	refusals *prometheus.CounterVec
	rules    *prometheus.CounterVec
	seconds  prometheus.Histogram
}

func newMetrics(registry *prometheus.Registry) *metrics {
	made := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "voicemesh_waf_requests_total", Help: "Checked requests by verdict.",
		}, []string{"verdict"}),
		refusals: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "voicemesh_waf_refusals_total",
			Help: "Requests refused, or detected where none is refused, by code of the error.",
		}, []string{"code"}),
		rules: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "voicemesh_waf_rule_matches_total",
			Help: "Refused or detected requests that a rule matched.",
		}, []string{"rule"}),
		seconds: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "voicemesh_waf_inspection_seconds",
			Help:    "Time that an inspection took.",
			Buckets: []float64{.0005, .001, .002, .003, .005, .01, .02, .05, .1, .25, .5, 1},
		}),
	}
	registry.MustRegister(made.requests, made.refusals, made.rules, made.seconds,
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	for _, verdict := range []string{allowed, denied, detected, failed} {
		made.requests.WithLabelValues(verdict)
	}
	return made
}

func (metrics *metrics) count(verdict string) { metrics.requests.WithLabelValues(verdict).Inc() }

func (metrics *metrics) observe(took time.Duration) { metrics.seconds.Observe(took.Seconds()) }

func (metrics *metrics) refused(verdict, code string, matched []int) {
	metrics.count(verdict)
	metrics.refusals.WithLabelValues(code).Inc()
	for _, id := range matched {
		metrics.rules.WithLabelValues(strconv.Itoa(id)).Inc()
	}
}

func newOperations(state *lifecycle, registry *prometheus.Registry) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /readyz", func(writer http.ResponseWriter, _ *http.Request) {
		if !state.ready.Load() {
			http.Error(writer, "not ready", http.StatusServiceUnavailable)
		}
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	return mux
}
