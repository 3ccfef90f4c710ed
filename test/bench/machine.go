package main

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// machine is where a run took place.
type machine struct {
	Date       string `json:"date"`
	CPU        string `json:"cpu"`
	CPUs       int    `json:"cpus"`
	MemoryMB   int64  `json:"memory_mb"`
	Kernel     string `json:"kernel"`
	Engine     string `json:"engine"`      // Docker's version, "" when no lab was made
	Rootfs     string `json:"rootfs"`      // of the hosts
	MTU        string `json:"mtu"`         // of each path, in bytes
	LoadBefore string `json:"load_before"` // load averages over 1, 5 and 15 minutes
	LoadAfter  string `json:"load_after"`
	Seconds    int    `json:"seconds"` // that the run took
}

func thisMachine() machine {
	m := machine{Date: time.Now().Format(time.DateOnly), CPU: cpuModel(), CPUs: runtime.NumCPU(), LoadBefore: loadAverage()}
	var info syscall.Sysinfo_t
	if err := syscall.Sysinfo(&info); err == nil {
		m.MemoryMB = int64(info.Totalram) * int64(info.Unit) / 1_000_000
	}
	if release, err := os.ReadFile("/proc/sys/kernel/osrelease"); err == nil {
		m.Kernel = strings.TrimSpace(string(release))
	}
	return m
}

func cpuModel() string {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return runtime.GOARCH // not every architecture tells
}

// loadAverage is "1.02 0.97 0.90".
func loadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	fields := strings.Fields(string(text))
	return strings.Join(fields[:min(3, len(fields))], " ")
}

// text is the head of the table.
func (m machine) text(rounds int) string {
	head := fmt.Sprintf("%s; %d x %s, %.1f GB, Linux %s", m.Date, m.CPUs, m.CPU, float64(m.MemoryMB)/1000, m.Kernel)
	if m.Engine != "" {
		head += ", Docker " + m.Engine
	}
	about := fmt.Sprintf("rounds: %d, in %d s; load before %s, after %s", rounds, m.Seconds, m.LoadBefore, m.LoadAfter)
	if m.MTU != "" {
		about += "; MTU: " + m.MTU
	}
	return wrap(head) + wrap(about)
}
