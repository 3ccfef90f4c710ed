package machine

import "testing"

func TestSelectingOptions(t *testing.T) {
	for options, want := range map[string]string{
		"rw,relatime,cpu": "cpu",
		"rw,nosuid,nodev,noexec,relatime,cpu,cpuacct":                                     "cpu,cpuacct",
		"rw,nosuid,nodev,noexec,relatime,xattr,name=systemd":                              "name=systemd",
		"rw,relatime,memory,clone_children":                                               "memory",
		"rw,relatime,xattr,release_agent=/lib/systemd/systemd-cgroups-agent,name=systemd": "name=systemd",
	} {
		if got := selectingOptions(options); got != want {
			t.Errorf("%s: got %q, want %q", options, got, want)
		}
	}
}
