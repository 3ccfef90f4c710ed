package main

import (
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"fairway/internal/config"
	"fairway/internal/router"
)

// routerFlags are the flags of `fairway router` as given; those of drouter have their old names as well.
type routerFlags struct {
	opt                      router.Options
	noAggressive, noP2P      bool
	cleanup                  bool
	p2p, p2p6                string
	static, peers            []string
	socket, run, agentSocket string
	debug                    bool
	format                   string
}

// newRouterCommand runs the distributed router in a container.
func newRouterCommand(a *app) *cobra.Command {
	f := &routerFlags{}
	cmd := &cobra.Command{
		Use:   "router",
		Short: "Route between Docker networks of any driver (in a container)",
		Long: `Run the distributed router. It runs as a container on every host, joins the networks that are marked for it,
whatever their driver, and leads containers' packets between them by the shortest path:

  docker run -d --name fairway-router --restart=always --pid=host --privileged \
    -v /var/run/docker.sock:/var/run/docker.sock fairway router
  docker network create -o fairway.router=true blue

Containers need nothing. When the router stops, their routes are what they were before.`,
		Example: `  fairway router
  fairway router --instance blue --no-aggressive --transit-net backbone
  fairway router --masquerade
  fairway router --cleanup`,
		Args: cobra.NoArgs,
	}
	f.add(cmd.Flags())
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		return pflag.NormalizedName(oldRouterFlag(name))
	})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		opt, err := f.options()
		if err != nil {
			return err
		}
		level := slog.LevelInfo
		if f.debug {
			level = slog.LevelDebug
		}
		log := slog.New(logHandler(cmd.ErrOrStderr(), config.LogFormat(f.format), level))
		r := router.New(router.Config{
			Options: opt, Socket: f.socket, Run: f.run, AgentSocket: f.agentSocket, Log: log, Version: buildVersion(),
		})
		if f.cleanup {
			return r.Cleanup(cmd.Context())
		}
		return r.Run(cmd.Context())
	}
	cmd.AddCommand(newRouterStatusCommand(a))
	return cmd
}

// oldRouterFlag gives a flag of drouter the name it has here.
func oldRouterFlag(name string) string {
	switch name {
	case "drouter-instance":
		return "instance"
	case "disable-p2p":
		return "no-p2p"
	}
	return name
}

func (f *routerFlags) add(fs *pflag.FlagSet) {
	fs.StringVar(&f.opt.Instance, "instance", "", "serve networks marked fairway.router=`NAME` instead of =true (also --drouter-instance)")
	fs.BoolVar(&f.noAggressive, "no-aggressive", false, "join only networks with containers of this host, and leave after the last one")
	fs.IntVar(&f.opt.IPOffset, "ip-offset", 0, "the router's address in each network: `N`-th usable one, from the end if negative (0: Docker's choice)")
	fs.BoolVar(&f.opt.ContainerGateway, "container-gateway", true, "lead all packets of containers through the router, not only those to its networks")
	fs.BoolVar(&f.opt.HostShortcut, "host-shortcut", false, "give the host routes to the networks, over the link to the router")
	fs.BoolVar(&f.opt.HostGateway, "host-gateway", false, "lead what the router has no route for to the host (implies --host-shortcut)")
	fs.BoolVar(&f.opt.Masquerade, "masquerade", false, "hide containers behind the host's address where they leave by it (implies --host-gateway)")
	fs.BoolVar(&f.noP2P, "no-p2p", false, "make no link between router and host (also --disable-p2p)")
	fs.StringVar(&f.p2p, "p2p-net", router.DefaultP2PNet, "`SUBNET` of the link between router and host")
	fs.StringVar(&f.p2p6, "p2p-net6", router.DefaultP2PNet6, "IPv6 `SUBNET` of that link; empty for none")
	fs.StringSliceVar(&f.static, "static-route", nil, "`PREFIX` that containers reach through the router; repeat for more")
	fs.StringVar(&f.opt.TransitNet, "transit-net", "", "`NETWORK` that is always joined; its gateway leads to everything else")
	fs.StringSliceVar(&f.peers, "peer", nil, "`ADDRESS` of a router that multicast does not find, as on overlay networks; repeat for more")
	fs.DurationVar(&f.opt.Resync, "resync", 10*time.Second, "look at everything anew so often")
	fs.StringVar(&f.opt.Driver, "driver", "fairway", "`NAME` of the fairway driver, whose networks the node routes itself")
	fs.StringVar(&f.socket, "docker-socket", "/var/run/docker.sock", "`PATH` of the engine's socket")
	fs.StringVar(&f.run, "run", "/run/fairway", "`DIRECTORY` of the status socket")
	fs.StringVar(&f.agentSocket, "agent-socket", "/proc/1/root/run/fairway/fairway.sock", "`PATH` of the host's agent, if there is one")
	fs.BoolVar(&f.cleanup, "cleanup", false, "only take away what a router of the instance left that was removed without being stopped")
	fs.BoolVarP(&f.debug, "debug", "d", false, "log every change of a kernel table")
	fs.StringVar(&f.format, "log-format", string(config.LogText), "`FORMAT` of the log: text or json")
}

// options reads what flags are texts.
func (f *routerFlags) options() (router.Options, error) {
	o := f.opt
	o.Aggressive, o.HostLink = !f.noAggressive, !f.noP2P
	var err error
	if o.P2PNet, err = prefixFlag("p2p-net", f.p2p); err != nil {
		return o, err
	}
	if o.P2PNet6, err = prefixFlag("p2p-net6", f.p2p6); err != nil {
		return o, err
	}
	for _, s := range f.static {
		p, err := prefixFlag("static-route", s)
		if err != nil {
			return o, err
		}
		o.StaticRoutes = append(o.StaticRoutes, p)
	}
	for _, s := range f.peers {
		a, err := netip.ParseAddr(s)
		if err != nil {
			return o, fmt.Errorf("--peer %s: want an IPv4 address", s)
		}
		o.Peers = append(o.Peers, a)
	}
	if l := config.LogFormat(f.format); l != config.LogText && l != config.LogJSON {
		return o, fmt.Errorf("--log-format %s: want text or json", f.format)
	}
	return o, o.Check()
}

func prefixFlag(name, val string) (netip.Prefix, error) {
	if val == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(val)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("--%s %s: want a prefix, as 10.9.0.0/16", name, val)
	}
	return p, nil
}
