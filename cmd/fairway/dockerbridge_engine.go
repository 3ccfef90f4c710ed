package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"fairway/internal/config"
	"fairway/internal/daemonjson"
	"fairway/internal/engine"
)

// engineVersions asks for the version of the engine that will read the file; source says who told.
type engineVersions func(ctx context.Context, cfg *config.Config) (version, source string)

// askTime bounds how long an engine that does not answer is waited for.
const askTime = 5 * time.Second

// askEngine asks the engine, and where that does not run, the program that it is. It returns no version when neither
// tells one.
func askEngine(ctx context.Context, cfg *config.Config) (version, source string) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	v, err := engine.New(cfg.Docker.Socket).Version(ctx)
	if err == nil {
		return v.Engine, "it says so at " + cfg.Docker.Socket
	}
	// "Docker version 28.5.2, build 3ef3c07c88"
	out, err := exec.CommandContext(ctx, "dockerd", "--version").Output()
	if _, rest, ok := strings.Cut(string(out), "version "); err == nil && ok {
		version, _, _ = strings.Cut(rest, ",")
		return version, "dockerd --version; the engine does not answer at " + cfg.Docker.Socket
	}
	return "", "the engine does not answer at " + cfg.Docker.Socket + ", and there is no dockerd to ask"
}

func (d *dockerBridge) engineVersion(ctx context.Context, cfg *config.Config) (daemonjson.Version, string, error) {
	if d.version != "" {
		v, err := daemonjson.ParseVersion(d.version)
		if err != nil {
			return v, "", usagef("--engine-version: %w", err)
		}
		return v, "--engine-version", nil
	}
	text, source := d.engines(ctx, cfg)
	if text == "" {
		return daemonjson.Version{}, source, nil
	}
	v, err := daemonjson.ParseVersion(text)
	if err != nil {
		return v, "", fmt.Errorf("%w (%s): give --engine-version", err, source)
	}
	return v, source, nil
}
