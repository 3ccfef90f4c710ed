package config

import (
	"fmt"
	"net/netip"
	"testing"
)

// This node's subnets of the bridge are given, or come from its blocks.
func TestDockerBridgeSubnets(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", "[]"},
		{"dockerBridge: {pool: 10.9.0.0/16, subnet: 10.9.1.0/24}", "[10.9.1.0/24]"},
		{"dockerBridge: {pool: 10.9.0.0/16, subnet: 10.9.1.0/25}", "[10.9.1.0/25]"},
		{"{pools: [{cidr: 10.9.0.0/16, block: 10.9.1.0/24}], dockerBridge: {pool: 10.9.0.0/16}}", "[10.9.1.0/24]"},
		{"{pools: [{cidr: 10.9.0.0/16, block: 10.9.16.0/20}], dockerBridge: {pool: 10.9.0.0/16, prefix: 26}}", "[10.9.16.0/26]"},
		{"{pools: [{cidr: 10.8.0.0/16, block: 10.8.1.0/24}, {cidr: 10.9.0.0/17, block: 10.9.7.0/24}], dockerBridge: {pool: 10.9.0.0/16}}", "[10.9.7.0/24]"},
		{
			"{pools: [{cidr: 10.9.0.0/16, block: 10.9.1.0/24}, {cidr: 'fd09::/48', block: 'fd09:0:0:1::/64'}], dockerBridge: {pool: 10.9.0.0/16, pool6: 'fd09::/48'}}",
			"[10.9.1.0/24 fd09:0:0:1::/64]",
		},
		{"{pools: [{cidr: 10.9.0.0/16, block: 10.9.1.0/24}], dockerBridge: {pool: 10.9.0.0/16, subnet: 10.9.3.0/24}}", "[10.9.3.0/24]"},
	} {
		conf, err := parse(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := fmt.Sprint(conf.DockerBridge.Subnets()); got != c.want {
			t.Errorf("%s: subnets %s, want %s", c.text, got, c.want)
		}
	}
}

// A derived subnet is as old as the pool that it is of.
func TestDockerBridgeOrigin(t *testing.T) {
	conf, err := parse("pools: [{cidr: 10.9.0.0/16, block: 10.9.1.0/24}]\ndockerBridge:\n  pool: 10.9.0.0/16\n")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range conf.Settings() {
		if s.Key == "dockerBridge.subnet" && (s.Value != "10.9.1.0/24" || s.Origin == "default") {
			t.Errorf("got %+v", s)
		}
	}
	if conf.DockerBridge.Pools()[0] != netip.MustParsePrefix("10.9.0.0/16") {
		t.Errorf("pools %v", conf.DockerBridge.Pools())
	}
}
