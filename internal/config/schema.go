package config

import (
	"errors"
	"net/netip"
	"time"
)

// schema is every key of the file, in the order of its documentation, bound to c.
func schema(c *Config) []field {
	return []field{
		objectField("node",
			textField("name", wantNodeName, &c.Node.Name, optional(parseNodeName)),
			addrField("address", wantIPv4, &c.Node.Address, parseIPv4),
			addrField("address6", wantIPv6, &c.Node.Address6, parseIPv6),
			textField("interface", wantInterface, &c.Node.Interface, optional(parseInterface)),
			prefixField("cidr", &c.Node.CIDR, parseUnicastPrefix),
		),
		textField("state", wantPath, &c.State, parsePath),
		textField("run", wantPath, &c.Run, parseSocketPath(len("/fairway.sock"))),
		objectField("docker",
			boolField("enabled", &c.Docker.Enabled),
			textField("plugins", wantPath, &c.Docker.Plugins, parsePath),
			textField("socket", wantPath, &c.Docker.Socket, parseSocketPath(0)),
			textField("name", wantDriver, &c.Docker.Name, parseDriver),
		),
		objectField("log",
			levelField("level", &c.Log.Level),
			enumField("format", &c.Log.Format, LogText, LogJSON),
		),
		objectField("store", objectField("etcd", etcdFields(&c.Store.Etcd)...)),
		objectsField("pools", []string{"cidr"}, &c.Pools, Pool{Egress: EgressRoute}, poolFields),
		objectField("ipam",
			durationField("holdDown", "a duration from 0s to 24h", &c.IPAM.HoldDown,
				func(d time.Duration) bool { return d >= 0 && d <= 24*time.Hour }),
		),
		enumField("fabric", &c.Fabric, FabricBGP, FabricStore, FabricStatic, FabricKernel, FabricNone),
		objectField("bgp", bgpFields(&c.BGP)...),
		objectsField("nodes", []string{"name"}, &c.Nodes, ClusterNode{}, nodeFields),
		objectsField("routes", []string{"to", "via"}, &c.Routes, Route{}, routeFields),
		objectField("dockerBridge",
			prefixField("pool", &c.DockerBridge.Pool, parseUnicastPrefix),
			numberField("prefix", &c.DockerBridge.Prefix, 1, 30),
			prefixField("subnet", &c.DockerBridge.Subnet, parseUnicastPrefix),
			prefixField("pool6", &c.DockerBridge.Pool6, parseUnicastPrefix),
			numberField("prefix6", &c.DockerBridge.Prefix6, 1, 126),
			prefixField("subnet6", &c.DockerBridge.Subnet6, parseUnicastPrefix),
			boolField("masquerade", &c.DockerBridge.Masquerade),
			listField("noMasqueradeTo", wantPrefix, &c.DockerBridge.NoMasqueradeTo, parseRoutePrefix, netip.Prefix.String),
		),
		objectField("metrics", listenField("listen", &c.Metrics.Listen)),
	}
}

func etcdFields(e *Etcd) []field {
	return []field{
		listField("endpoints", wantEndpoint, &e.Endpoints, parseEndpoint, func(s string) string { return s }),
		objectField("tls",
			textField("ca", wantPath, &e.TLS.CA, optional(parsePath)),
			textField("cert", wantPath, &e.TLS.Cert, optional(parsePath)),
			textField("key", wantPath, &e.TLS.Key, optional(parsePath)),
		),
		textField("user", "a user name", &e.User, parseUser),
		textField("passwordFile", wantPath, &e.PasswordFile, optional(parsePath)),
		textField("prefix", wantPrefixOf, &e.Prefix, parseKeyPrefix),
	}
}

func poolFields(p *Pool) []field {
	return []field{
		prefixField("cidr", &p.CIDR, parseUnicastPrefix),
		numberField("blockSize", &p.BlockSize, 1, 128),
		prefixField("block", &p.Block, parseUnicastPrefix),
		numberField("size", &p.Size, 1, 128),
		enumField("egress", &p.Egress, EgressRoute, EgressMasquerade),
		listField("noMasqueradeTo", wantPrefix, &p.NoMasqueradeTo, parseRoutePrefix, netip.Prefix.String),
	}
}

func bgpFields(b *BGP) []field {
	return []field{
		asnField("asn", &b.ASN, false),
		addrField("routerID", wantIPv4, &b.RouterID, parseIPv4),
		listenField("listen", &b.Listen),
		holdTimeField(&b.HoldTime),
		boolField("mesh", &b.Mesh),
		boolField("meshBFD", &b.MeshBFD),
		boolField("routeReflector", &b.RouteReflector),
		boolField("multipath", &b.Multipath),
		listField("aggregate", wantPrefix, &b.Aggregate, parseUnicastPrefix, netip.Prefix.String),
		objectField("gracefulRestart",
			boolField("enabled", &b.GracefulRestart.Enabled),
			durationField("restartTime", "a duration from 1s to 4095s in whole seconds (RFC 4724, 3)", &b.GracefulRestart.RestartTime,
				func(d time.Duration) bool { return wholeSeconds(d) && d >= time.Second && d <= 4095*time.Second }),
		),
		objectsField("peers", []string{"address", "interface", "range"}, &b.Peers, Peer{Port: 179, HoldTime: inherit}, peerFields),
		objectField("bfd",
			durationField("interval", "a duration from 50ms to 10s in whole microseconds (RFC 5880, 4.1)", &b.BFD.Interval,
				func(d time.Duration) bool {
					return d%time.Microsecond == 0 && d >= 50*time.Millisecond && d <= 10*time.Second
				}),
			numberField("multiplier", &b.BFD.Multiplier, 1, 255),
		),
		objectField("import",
			listField("prefixes", wantPrefix, &b.Import.Prefixes, parseRoutePrefix, netip.Prefix.String),
			numberField("maxPrefixes", &b.Import.MaxPrefixes, 0, 1<<32-1),
		),
	}
}

func peerFields(p *Peer) []field {
	return []field{
		addrField("address", wantNextHop, &p.Address, parseNextHop),
		textField("interface", wantInterface, &p.Interface, optional(parseInterface)),
		prefixField("range", &p.Range, parseUnicastPrefix),
		asnField("asn", &p.ASN, true),
		numberField("port", &p.Port, 1, 65535),
		textField("passwordFile", wantPath, &p.PasswordFile, optional(parsePath)),
		boolField("ttlSecurity", &p.TTLSecurity),
		numberField("multihop", &p.Multihop, 0, 255),
		boolField("bfd", &p.BFD),
		holdTimeField(&p.HoldTime),
		boolField("passive", &p.Passive),
	}
}

func nodeFields(n *ClusterNode) []field {
	return []field{
		textField("name", wantNodeName, &n.Name, optional(parseNodeName)),
		addrField("address", wantIPv4, &n.Address, parseIPv4),
		addrField("address6", wantIPv6, &n.Address6, parseIPv6),
		listField("subnets", wantPrefix, &n.Subnets, parseUnicastPrefix, netip.Prefix.String),
	}
}

func routeFields(r *Route) []field {
	return []field{
		prefixField("to", &r.To, parseRoutePrefix),
		addrField("via", wantNextHop, &r.Via, parseNextHop),
		boolField("announce", &r.Announce),
	}
}

// inherit marks the hold time of a peer that has none of its own, until the file is read.
const inherit time.Duration = -1

func wholeSeconds(d time.Duration) bool { return d%time.Second == 0 }

func holdTimeField(p *time.Duration) field {
	// The RFC also has 0, a session without keepalives, which the speaker cannot do.
	const want = "a duration from 3s to 65535s in whole seconds (RFC 4271, 4.2)"
	return durationField("holdTime", want, p, func(d time.Duration) bool {
		return wholeSeconds(d) && d >= 3*time.Second && d <= 65535*time.Second
	})
}

// asnField is the number of an autonomous system; zero may stand for any.
func asnField(name string, p *uint32, zero bool) field {
	want := "a number from 1 to 4294967294 without the reserved 23456 and 65535 (RFC 7607, 6793, 7300)"
	if zero {
		want = "0 for any, or " + want
	}
	f := numberField(name, p, 0, 1<<32-1)
	set := f.set
	f.want = want
	f.set = func(s string) error {
		old := *p
		err := set(s)
		reserved := *p == 0 && !zero || *p == 23456 || *p == 65535 || *p == 1<<32-1
		if err != nil || reserved {
			*p = old
			return errors.New("want " + want)
		}
		return nil
	}
	return f
}
