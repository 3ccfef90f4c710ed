package api

import (
	"context"
	"net/http"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics counts what the agent does. Its methods are safe for concurrent use.
type Metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	failures *prometheus.CounterVec
	passes   prometheus.Histogram
	mended   *prometheus.CounterVec
	claims   *prometheus.HistogramVec
	refused  *prometheus.CounterVec
}

// mendedKinds are listed from the start, so that a rate over them is defined before the first one.
func mendedKinds() []string {
	return []string{"addresses", "links", "neighbours", "routes", "rules", "sysctls"}
}

// NewMetrics returns metrics of their own registry; version is the agent's.
func NewMetrics(version string) *Metrics {
	// A driver call is answered in milliseconds, and has to be within seconds.
	buckets := []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fairway_plugin_request_duration_seconds", Help: "Time to answer the engine's driver calls, by method.", Buckets: buckets,
		}, []string{"method"}),
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fairway_plugin_errors_total", Help: "Driver calls answered with an error, by method.",
		}, []string{"method"}),
		passes: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "fairway_pass_duration_seconds", Help: "Time of one pass: plan, compare with the kernel, apply, announce.", Buckets: buckets,
		}),
		mended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fairway_mended_total", Help: "Objects that somebody else took away or changed and the agent put back, by kind.",
		}, []string{"kind"}),
	}
	for _, kind := range mendedKinds() {
		m.mended.WithLabelValues(kind)
	}
	m.claims = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "fairway_claim_duration_seconds", Help: "Time to claim or give back a block or an address in the store, by operation.", Buckets: buckets,
	}, []string{"operation"})
	m.refused = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fairway_claim_errors_total", Help: "Claims in the store that ended with an error, by operation.",
	}, []string{"operation"})
	info := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "fairway_build_info", Help: "Always 1; the labels tell the build.",
		ConstLabels: prometheus.Labels{"version": version, "go_version": runtime.Version()},
	})
	info.Set(1)
	m.registry.MustRegister(m.requests, m.failures, m.passes, m.mended, m.claims, m.refused, info,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// ObserveRequest counts one driver call of the engine, as "NetworkDriver.Join"; err is what was answered.
func (m *Metrics) ObserveRequest(method string, d time.Duration, err error) {
	m.requests.WithLabelValues(method).Observe(d.Seconds())
	if err != nil {
		m.failures.WithLabelValues(method).Inc()
	}
}

// ObserveClaim counts one operation on the store, as "block", "address" or "release"; err is how it ended.
func (m *Metrics) ObserveClaim(operation string, d time.Duration, err error) {
	m.claims.WithLabelValues(operation).Observe(d.Seconds())
	if err != nil {
		m.refused.WithLabelValues(operation).Inc()
	}
}

// ObservePass counts one pass over the kernel.
func (m *Metrics) ObservePass(d time.Duration) { m.passes.Observe(d.Seconds()) }

// Mended counts n objects of a kind (as in Kernel.Mended) that were put back; n below 1 counts nothing.
func (m *Metrics) Mended(kind string, n int) {
	if n > 0 {
		m.mended.WithLabelValues(kind).Add(float64(n))
	}
}

// handler serves the metrics together with what the backend says at that moment. A backend that cannot answer costs its
// own metrics (fairway_up is 0 then), not the others.
func (m *Metrics) handler(b Backend) http.Handler {
	own := prometheus.NewRegistry()
	own.MustRegister(&collector{backend: b, timeout: 5 * time.Second})
	return promhttp.HandlerFor(prometheus.Gatherers{m.registry, own}, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError})
}

// collector turns a Status into metrics at each scrape.
type collector struct {
	backend Backend
	timeout time.Duration
}

// Describe sends nothing: which metrics there are depends on the node (an unchecked collector).
func (c *collector) Describe(chan<- *prometheus.Desc) {}

// Collect asks the backend once.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	out := sink(ch)
	ready, _ := c.backend.Ready()
	out.gauge("fairway_ready", "1 when the node serves containers.", flag(ready))
	ctx, cancel := context.WithTimeout(context.Background(), c.timeout)
	defer cancel()
	st, err := c.backend.Status(ctx)
	out.gauge("fairway_up", "1 when the agent could tell its status.", flag(err == nil))
	if err != nil {
		return
	}
	out.gauge("fairway_containers", "Containers on our networks on this node.", float64(st.Containers))
	out.gauge("fairway_networks", "Docker networks of our driver on this node.", float64(st.Networks))
	if st.Engine.Enabled { // a plain router has none to miss
		out.gauge("fairway_engine_reachable", "1 when the Docker engine answers.", flag(st.Engine.Reachable))
	}
	out.gauge("fairway_kernel_pending_errors", "Objects that could not be put into the kernel yet.", float64(len(st.Kernel.Pending)))
	for kind, n := range st.Routes {
		out.gauge("fairway_routes", "Routes of ours in the kernel, by where they come from.", float64(n), "source", kind)
	}
	out.pools(st.Pools)
	out.fabric(st.Fabric)
	out.gauge("fairway_drained", "1 when the node was asked to announce nothing.", flag(st.Drain != nil))
	if st.Store != nil {
		out.store(*st.Store)
	}
	for _, t := range st.Neighbours {
		out.gauge("fairway_neighbour_entries", "Entries of the kernel's ARP and ND tables that count against the limit.", float64(t.Entries), "family", t.Family)
		out.gauge("fairway_neighbour_limit", "The limit of the kernel's ARP and ND tables (gc_thresh3).", float64(t.Limit), "family", t.Family)
	}
	out.conditions(st.Conditions)
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// sink takes metrics by name; labels are pairs of name and value.
type sink chan<- prometheus.Metric

func (s sink) gauge(name, help string, value float64, labels ...string) {
	var names, values []string
	for i := 0; i+1 < len(labels); i += 2 {
		names, values = append(names, labels[i]), append(values, labels[i+1])
	}
	m, err := prometheus.NewConstMetric(prometheus.NewDesc(name, help, names, nil), prometheus.GaugeValue, value, values...)
	if err != nil { // a label that is not UTF-8: told at the scrape, as every other metric that fails
		m = prometheus.NewInvalidMetric(prometheus.NewDesc(name, help, names, nil), err)
	}
	s <- m
}

func (s sink) pools(pools []PoolUsage) {
	for _, p := range pools {
		name := p.CIDR.String()
		for state, n := range map[string]int{"held": p.Held, "resting": p.Resting, "free": p.Free} {
			s.gauge("fairway_pool_addresses", "Addresses in this node's blocks of a pool, by state.", float64(n), "pool", name, "state", state)
		}
		s.gauge("fairway_pool_blocks", "Blocks of a pool that this node has.", float64(p.Blocks), "pool", name)
		s.gauge("fairway_pool_usage_ratio", "Share of what this node may give out from a pool that is not to be had now.", p.Usage, "pool", name)
	}
}

// store tells of the cluster what this node knows; on a node without a store there is nothing to tell.
func (s sink) store(st Store) {
	s.gauge("fairway_store_up", "1 when the store answers.", flag(st.Reachable))
	s.gauge("fairway_store_fenced", "1 when this node was removed from the cluster: it neither announces nor gives out addresses.", flag(st.Fenced != ""))
	s.gauge("fairway_store_unsettled", "What this node and the store do not agree on, at this moment.", float64(len(st.Unsettled)))
	s.gauge("fairway_cluster_nodes", "Nodes of the cluster.", float64(st.Nodes))
	s.gauge("fairway_cluster_nodes_alive", "Nodes of the cluster that are alive, as last heard.", float64(st.Alive))
	s.gauge("fairway_cluster_networks", "Networks of the cluster.", float64(st.Networks))
	s.gauge("fairway_store_blocks", "Blocks that this node has in the store.", float64(st.Blocks))
	s.gauge("fairway_store_addresses", "Explicit addresses that this node has in the store.", float64(st.Addresses))
}

func (s sink) fabric(f Fabric) {
	s.gauge("fairway_fabric_converged", "1 when every source of routes has reported once.", flag(f.Converged), "fabric", f.Name)
	s.gauge("fairway_fabric_announced", "Prefixes told to other nodes.", float64(f.Announced), "fabric", f.Name)
	s.gauge("fairway_fabric_learned", "Prefixes heard from other nodes.", float64(f.Learned), "fabric", f.Name)
	for _, p := range f.Peers {
		s.gauge("fairway_peer_up", "1 when the session with a peer is established.", flag(p.Established()), "peer", p.Name)
		s.gauge("fairway_peer_prefixes_received", "Prefixes accepted from a peer.", float64(p.Received), "peer", p.Name)
		s.gauge("fairway_peer_prefixes_refused", "Prefixes of a peer that the import filter kept out.", float64(p.Refused), "peer", p.Name)
		s.gauge("fairway_peer_prefixes_sent", "Prefixes told to a peer.", float64(p.Sent), "peer", p.Name)
	}
}

// conditions counts by code: two peers that are down are one metric of value 2.
func (s sink) conditions(all []Condition) {
	type key struct{ code, severity string }
	count := make(map[key]int)
	for _, c := range all {
		count[key{c.Code, string(c.Severity)}]++
	}
	for k, n := range count {
		s.gauge("fairway_conditions", "Conditions that stand, by code.", float64(n), "code", k.code, "severity", k.severity)
	}
}
