package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"fairway/internal/config"
	"fairway/internal/daemonjson"
)

// dockerBridge is what both commands about Docker's default bridge have in common.
type dockerBridge struct {
	flags   *configFlags
	file    string
	version string
	engines engineVersions
	now     func() time.Time
}

func newDockerBridgeCommand(a *app) *cobra.Command {
	return dockerBridgeCommand(&dockerBridge{engines: askEngine, now: a.now})
}

func dockerBridgeCommand(d *dockerBridge) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "docker-bridge",
		Short: "Give Docker's default bridge its subnet of the cluster",
		Long: `Write this node's subnet of the cluster, from dockerBridge in the config, into Docker's daemon.json, so that containers of the default bridge, of plain ` + "`docker run`" + `, are reached from other hosts at their own addresses.

Every other key of the file stays as it is. Docker has to be restarted to take it in, which these commands never do. Keys that stand as flags on dockerd's command line cannot be seen: the engine refuses to start when a key is in both places.`,
		Example: `  fairway docker-bridge plan
  fairway docker-bridge apply --dry-run
  fairway docker-bridge apply`,
	}
	d.flags = addConfigFlags(cmd)
	flags := cmd.PersistentFlags()
	flags.StringVar(&d.file, "file", daemonjson.DefaultPath, "Docker's config `FILE`")
	flags.StringVar(&d.version, "engine-version", "", "write the keys for this `VERSION` of the engine (default: ask the engine, or dockerd)")
	cmd.AddCommand(newDockerBridgePlan(d), newDockerBridgeApply(d))
	return cmd
}

func newDockerBridgePlan(d *dockerBridge) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "plan",
		Short: "Show this node's subnet, the keys, and the change of the file",
		Args:  cobra.NoArgs,
	}
	form := addOutput(cmd, formatTable, formatJSON)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p, err := d.plan(cmd.Context())
		if err != nil {
			return err
		}
		if form.json() {
			return writeJSON(cmd.OutOrStdout(), p.forPrograms())
		}
		return p.show(cmd.OutOrStdout())
	}
	return cmd
}

func newDockerBridgeApply(d *dockerBridge) *cobra.Command {
	dry := false
	cmd := &cobra.Command{
		Use:   "apply",
		Short: "Write the keys into the file, and keep the file before",
		Long: `Write the keys into Docker's daemon.json. The file before is kept beside it. A file that has the keys already is left alone, without a backup; one that is not valid JSON, or that contradicts, is refused.

It never restarts Docker. After it: ` + "`systemctl restart docker`" + `.`,
		Args: cobra.NoArgs,
	}
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only show what would change")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p, err := d.plan(cmd.Context())
		if err != nil {
			return err
		}
		if dry {
			return p.showChanges(cmd.OutOrStdout())
		}
		return p.apply(cmd.OutOrStdout(), d.now())
	}
	return cmd
}

// bridgePlan is what is to be written, and why.
type bridgePlan struct {
	conf     config.DockerBridge
	version  daemonjson.Version
	source   string // of the version
	path     string // as the user named it
	file     *daemonjson.File
	next     *daemonjson.Document
	settings []daemonjson.Setting
	notes    []string
}

func (d *dockerBridge) plan(ctx context.Context) (*bridgePlan, error) {
	cfg, err := d.flags.load()
	if err != nil {
		return nil, err
	}
	p := &bridgePlan{conf: cfg.DockerBridge, path: d.file}
	if !p.conf.Pool.IsValid() {
		return nil, errors.New("dockerBridge.pool is not set in the config: give the range that the default bridges of all nodes are in, and this node's part of it (docs/default-bridge.md)")
	}
	if p.version, p.source, err = d.engineVersion(ctx, cfg); err != nil {
		return nil, err
	}
	if p.file, err = daemonjson.Read(d.file); err != nil {
		return nil, err
	}
	bridge := daemonjson.Bridge{Subnet: p.conf.Subnet, Subnet6: p.conf.Subnet6}
	if p.settings, err = p.file.Document.Settings(bridge, p.version); err != nil {
		return nil, fmt.Errorf("%s: %w", d.file, err)
	}
	if p.next, err = p.file.Document.Set(p.settings); err != nil {
		return nil, fmt.Errorf("%s: %w", d.file, err)
	}
	p.notes = p.file.Document.Notes(bridge, p.version)
	return p, nil
}

// changed says that the file has to be written.
func (p *bridgePlan) changed() bool { return daemonjson.Diff(p.file.Document, p.next) != "" }

// show is the plan for people.
func (p *bridgePlan) show(w io.Writer) error {
	var b strings.Builder
	row := func(name, text string) { b.WriteString(wrap(fmt.Sprintf("%-14s", name), text)) }
	row("subnet", fmt.Sprintf("%s of %s", p.conf.Subnet, p.conf.Pool))
	if p.conf.Subnet6.IsValid() {
		row("", fmt.Sprintf("%s of %s", p.conf.Subnet6, p.conf.Pool6))
	}
	row("egress", p.egress())
	row("engine", fmt.Sprintf("%s (%s)", p.version, p.source))
	row("file", p.path)
	b.WriteString("\nKeys:\n")
	for _, s := range p.settings {
		fmt.Fprintf(&b, "  %-20s  %s\n", s.Key, s.Value)
	}
	b.WriteString("\n")
	if _, err := io.WriteString(w, b.String()); err != nil {
		return err
	}
	return p.showChanges(w)
}

// egress says what happens to packets that leave the cluster.
func (p *bridgePlan) egress() string {
	if !p.conf.Masquerade {
		return "with the containers' own addresses, everywhere"
	}
	text := "masquerade what leaves the cluster"
	if len(p.conf.NoMasqueradeTo) > 0 {
		var all []string
		for _, to := range p.conf.NoMasqueradeTo {
			all = append(all, to.String())
		}
		text += ", but for " + strings.Join(all, ", ")
	}
	return text + " (by the agent, so Docker's ip-masq is off)"
}

// showChanges shows what differs, and what the operator has to know.
func (p *bridgePlan) showChanges(w io.Writer) error {
	var b strings.Builder
	diff := daemonjson.Diff(p.file.Document, p.next)
	switch {
	case diff == "":
		fmt.Fprintf(&b, "%s is as it should be.\n", p.path)
	case !p.file.Exists():
		fmt.Fprintf(&b, "%s is not there, and would be made:\n%s", p.path, diff)
	default:
		fmt.Fprintf(&b, "%s would change:\n%s", p.path, diff)
	}
	p.remarks(&b)
	_, err := io.WriteString(w, b.String())
	return err
}

func (p *bridgePlan) remarks(b *strings.Builder) {
	for _, n := range p.notes {
		b.WriteString(wrap("! ", n))
	}
}

// apply writes the file if there is a reason to.
func (p *bridgePlan) apply(w io.Writer, now time.Time) error {
	if !p.changed() {
		return p.showChanges(w)
	}
	diff := daemonjson.Diff(p.file.Document, p.next)
	backup, err := p.file.Write(p.next, now)
	if err != nil {
		return fmt.Errorf("write %s: %w", p.path, err)
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s changed:\n%s", p.path, diff)
	if backup != "" {
		fmt.Fprintf(&b, "The file before:  %s\n", backup)
	}
	p.remarks(&b)
	if p.version.Validates() {
		fmt.Fprintf(&b, "Check it:         dockerd --validate --config-file %s\n", p.path)
	}
	b.WriteString("Restart Docker:   systemctl restart docker\n")
	b.WriteString(wrap("", "Until then nothing changes. Containers of the default bridge get addresses of the new subnet when they are started again."))
	_, err = io.WriteString(w, b.String())
	return err
}

// bridgeJSON is the plan for programs.
type bridgeJSON struct {
	Subnets      []netip.Prefix `json:"subnets"`
	Engine       string         `json:"engine"` // "unknown" when it is
	EngineSource string         `json:"engine_source"`
	File         string         `json:"file"`
	Exists       bool           `json:"exists"`
	Changes      bool           `json:"changes"` // of the file
	Diff         string         `json:"diff"`
	Keys         map[string]any `json:"keys"`
	Notes        []string       `json:"notes"`
	Egress       string         `json:"egress"`
}

func (p *bridgePlan) forPrograms() bridgeJSON {
	keys := map[string]any{}
	for _, s := range p.settings {
		keys[s.Key] = s.Value
	}
	out := bridgeJSON{
		Subnets: p.conf.Subnets(), Engine: p.version.String(), EngineSource: p.source, File: p.path, Exists: p.file.Exists(),
		Changes: p.changed(), Diff: daemonjson.Diff(p.file.Document, p.next), Keys: keys, Notes: append([]string{}, p.notes...), Egress: p.egress(),
	}
	return out
}
