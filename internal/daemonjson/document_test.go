package daemonjson_test

import (
	"encoding/json"
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"fairway/internal/daemonjson"
)

func set(pairs ...string) []daemonjson.Setting {
	var out []daemonjson.Setting
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, daemonjson.Setting{Key: pairs[i], Value: json.RawMessage(pairs[i+1])})
	}
	return out
}

func TestSet(t *testing.T) {
	const bom = "\xef\xbb\xbf"
	for _, c := range []struct {
		name, in string
		settings []daemonjson.Setting
		want     string
	}{
		{"empty file", "", set("bip", `"x"`, "ip-masq", "false"), "{\n  \"bip\": \"x\",\n  \"ip-masq\": false\n}\n"},
		{"white space", " \n\t\n", set("bip", `"x"`), "{\n  \"bip\": \"x\"\n}\n"},
		{"empty file with a byte order mark", bom, set("bip", `"x"`), bom + "{\n  \"bip\": \"x\"\n}\n"},
		{"empty object", "{}", set("bip", `"x"`), "{\n  \"bip\": \"x\"\n}"},
		{"empty object on two lines", "{\n}\n", set("bip", `"x"`), "{\n  \"bip\": \"x\"\n}\n"},
		{"empty object, CRLF", "{\r\n}\r\n", set("bip", `"x"`, "a", "1"), "{\r\n  \"bip\": \"x\",\r\n  \"a\": 1\r\n}\r\n"},
		{"another key", "{\n  \"debug\": true\n}\n", set("bip", `"x"`), "{\n  \"debug\": true,\n  \"bip\": \"x\"\n}\n"},
		{"four spaces", "{\n    \"debug\": true\n}\n", set("bip", `"x"`), "{\n    \"debug\": true,\n    \"bip\": \"x\"\n}\n"},
		{"tabs, no space at the colon", "{\n\t\"debug\":true,\n\t\"mtu\":1400\n}", set("bip", `"x"`, "b", "1"), "{\n\t\"debug\":true,\n\t\"mtu\":1400,\n\t\"bip\":\"x\",\n\t\"b\":1\n}"},
		{"CRLF", "{\r\n  \"debug\": true\r\n}\r\n", set("bip", `"x"`), "{\r\n  \"debug\": true,\r\n  \"bip\": \"x\"\r\n}\r\n"},
		{"one line", `{"debug":true}`, set("bip", `"x"`, "a", "1"), `{"debug":true,"bip":"x","a":1}`},
		{"one line with spaces", `{ "debug": true, "mtu": 1 }`, set("bip", `"x"`), `{ "debug": true, "mtu": 1, "bip": "x" }`},
		{"spaces around the colon", "{\n \"a\" : 1\n}", set("bip", `"x"`), "{\n \"a\" : 1,\n \"bip\" : \"x\"\n}"},
		{"empty lines between keys", "{\n  \"a\": 1,\n\n  \"b\": 2\n}\n", set("bip", `"x"`), "{\n  \"a\": 1,\n\n  \"b\": 2,\n  \"bip\": \"x\"\n}\n"},
		{"comma first", "{\n    \"a\": 1\n  , \"b\": 2\n}\n", set("bip", `"x"`), "{\n    \"a\": 1\n  , \"b\": 2, \"bip\": \"x\"\n}\n"},
		{"byte order mark", bom + "{\"a\": 1}", set("bip", `"x"`), bom + "{\"a\": 1,\"bip\": \"x\"}"},
		{
			"a key in its place", "{\n  \"bip\": \"old\",\n  \"debug\": true\n}\n", set("bip", `"new"`, "ip-masq", "false"),
			"{\n  \"bip\": \"new\",\n  \"debug\": true,\n  \"ip-masq\": false\n}\n",
		},
		{"another type", `{"bip": {"a": [1, 2]}, "z": 0}`, set("bip", `"new"`), `{"bip": "new", "z": 0}`},
		{"a key written with escapes", `{"b\u0069p": "old"}`, set("bip", `"new"`), `{"b\u0069p": "new"}`},
		{"the same value written otherwise", `{"bip": "10.9.1.1\/24"}`, set("bip", `"10.9.1.1/24"`), `{"bip": "10.9.1.1\/24"}`},
		{"a key of that name further in", `{"x": {"bip": 1}}`, set("bip", `"new"`), `{"x": {"bip": 1},"bip": "new"}`},
		{
			"numbers stay as they are written", "{\"a\": 12345678901234567890123, \"b\": 1.0, \"c\": 1e400, \"d\": -0}", set("bip", `1`),
			"{\"a\": 12345678901234567890123, \"b\": 1.0, \"c\": 1e400, \"d\": -0, \"bip\": 1}",
		},
		{
			"unicode", "{\n  \"labels\": [\"straße=日本\", \"\\ud83d\\ude00\", \"😀\"],\n  \"é\": \"\\u0000\"\n}", set("bip", `"x"`),
			"{\n  \"labels\": [\"straße=日本\", \"\\ud83d\\ude00\", \"😀\"],\n  \"é\": \"\\u0000\",\n  \"bip\": \"x\"\n}",
		},
		{
			"nested", "{\n  \"log-opts\": {\n    \"max-size\": \"10m\"\n  },\n  \"dns\": [\n    \"10.0.0.1\"\n  ]\n}", set("bip", `"x"`),
			"{\n  \"log-opts\": {\n    \"max-size\": \"10m\"\n  },\n  \"dns\": [\n    \"10.0.0.1\"\n  ],\n  \"bip\": \"x\"\n}",
		},
		{"an odd file", "\n\n  {\"a\"\n:\n1\n,\n\"b\":2}\n\n", set("bip", `"x"`), "\n\n  {\"a\"\n:\n1\n,\n\"b\":2,\n\"bip\":\"x\"}\n\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := daemonjson.Parse([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			out, err := d.Set(c.settings)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, string(out.Text())); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			again, err := out.Set(c.settings)
			if err != nil || string(again.Text()) != c.want || daemonjson.Diff(out, again) != "" {
				t.Errorf("the second time it becomes %q, error %v", again.Text(), err)
			}
			for _, s := range c.settings {
				if v, ok := out.Value(s.Key); !ok {
					t.Errorf("%s is not there", s.Key)
				} else if same, err := daemonjson.Same(v, s.Value); !same || err != nil {
					t.Errorf("%s is %s", s.Key, v)
				}
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"comment", "{\n  // bridge\n  \"bip\": 1\n}", "2:3: is not JSON, which has no comments"},
		{"comment of another kind", "{\"a\": 1 /* x */}", "1:9: is not JSON, which has no comments"},
		{"comment of a shell", "# x\n{}", "1:1: is not JSON, which has no comments"},
		{"comma at the end", "{\n  \"a\": 1,\n}\n", "3:1: is not JSON: invalid character '}'"},
		{"no comma", "{\n  \"a\": 1\n  \"b\": 2\n}\n", "3:3: is not JSON: invalid character '\"'"},
		{"cut off", "{\n  \"a\": 1", "2:9: is not JSON: unexpected end"},
		{"single quotes", "{'a': 1}", "1:2: is not JSON"},
		{"no quotes", "{a: 1}", "1:2: is not JSON"},
		{"text behind", "{}\nx", "2:1: is not JSON"},
		{"two objects", "{}{}", "1:3: is not JSON"},
		{"after multi-byte characters", "{\"日本\": tru}", "1:11: is not JSON"},
		{"twice", "{\n  \"bip\": \"a\",\n  \"mtu\": 1,\n  \"bip\": \"b\"\n}", `4:3: key "bip" stands twice; the first one is in line 2`},
		{"twice, once with escapes", `{"bip": 1, "b\u0069p": 2}`, `1:12: key "bip" stands twice`},
		{"twice further in", "{\"a\": [{\"x\": 1,\n\"x\": 2}]}", `2:1: key "x" stands twice; the first one is in line 1`},
		{"array", " [1]", "1:2: is not an object"},
		{"null", "null", "1:1: is not an object"},
		{"string", "\n\"x\"", "2:1: is not an object"},
		{"number", "1", "1:1: is not an object"},
		{"not UTF-8", "{\"a\": \"\xff\"}", "1:8: is not UTF-8"},
		{"UTF-16", "\xff\xfe{\x00}\x00", "1:1: is UTF-16; want UTF-8"},
		{"yaml", "debug: true\n", "1:1: is not JSON"},
		{"with a byte order mark", "\xef\xbb\xbf{,}", "1:2: is not JSON"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := daemonjson.Parse([]byte(c.in))
			if err == nil {
				t.Fatal("it is taken")
			}
			if _, ok := errors.AsType[*daemonjson.SyntaxError](err); !ok || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("says %q, want %q", err, c.want)
			}
		})
	}
}

// Whatever a text is, what was edited has all that was there before, and the new key.
func FuzzSet(f *testing.F) {
	for _, s := range []string{"", "{}", "{\"a\":1}", "{\n\t\"bip\" : [1,{\"x\":null}] ,\r\n\"é\":\"\\u0041\"}", "\xef\xbb\xbf{ }", "[", "{\"a\":1,\"a\":2}"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := daemonjson.Parse([]byte(text))
		if err != nil {
			return
		}
		out, err := d.Set(set("bip", `"10.9.1.1/24"`, "ip-masq", "false"))
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		var before, after map[string]any
		if trimmed := strings.TrimSpace(strings.TrimPrefix(text, "\xef\xbb\xbf")); trimmed != "" {
			if err := json.Unmarshal([]byte(trimmed), &before); err != nil {
				return // such as a number that is too large for Go
			}
		}
		if err := json.Unmarshal([]byte(strings.TrimPrefix(string(out.Text()), "\xef\xbb\xbf")), &after); err != nil {
			t.Fatalf("%q becomes %q: %v", text, out.Text(), err)
		}
		if before == nil {
			before = map[string]any{}
		}
		before["bip"], before["ip-masq"] = "10.9.1.1/24", false
		if diff := cmp.Diff(before, after); diff != "" {
			t.Errorf("%q becomes %q:\n%s", text, out.Text(), diff)
		}
	})
}

func TestDiff(t *testing.T) {
	before, err := daemonjson.Parse([]byte("{\n  \"a\": 1,\n  \"b\": 2,\n  \"c\": 3,\n  \"bip\": \"old\",\n  \"d\": 4,\n  \"e\": 5,\n  \"f\": 6,\n  \"g\": 7,\n  \"h\": 8\n}\n"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := before.Set(set("bip", `"new"`, "ip-masq", "false"))
	if err != nil {
		t.Fatal(err)
	}
	const want = `  ...
    "b": 2,
    "c": 3,
-   "bip": "old",
+   "bip": "new",
    "d": 4,
    "e": 5,
    "f": 6,
    "g": 7,
-   "h": 8
+   "h": 8,
+   "ip-masq": false
  }
`
	if diff := cmp.Diff(want, daemonjson.Diff(before, after)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func TestSettings(t *testing.T) {
	both := daemonjson.Bridge{Subnet: prefix("10.9.1.0/24"), Subnet6: prefix("fd09:0:0:1::/64")}
	four := daemonjson.Bridge{Subnet: prefix("10.9.1.0/24")}
	const base = `bip="10.9.1.1/24" fixed-cidr="10.9.1.0/24" ip-masq=false`
	for _, c := range []struct {
		name, version string
		bridge        daemonjson.Bridge
		in, want      string
	}{
		{"20.10", "20.10.24+dfsg1", four, "", base},
		{"20.10 with IPv6", "20.10.24+dfsg1", both, "", base + ` ipv6=true fixed-cidr-v6="fd09:0:0:1::/64"`},
		{"26.1", "26.1.5+dfsg1", both, "", base + ` ipv6=true fixed-cidr-v6="fd09:0:0:1::/64"`},
		{"28.0", "28.0.4", both, "", base + ` ipv6=true bip6="fd09:0:0:1::1/64" fixed-cidr-v6="fd09:0:0:1::/64"`},
		{"28.2", "28.2.0", four, "", base + ` allow-direct-routing=true`},
		{"28.5 with IPv6", "28.5.2+dfsg4", both, "", base + ` ipv6=true bip6="fd09:0:0:1::1/64" fixed-cidr-v6="fd09:0:0:1::/64" allow-direct-routing=true`},
		{"29", "29.0.1", four, "", base + ` allow-direct-routing=true`},
		{"unknown", "", both, "", base + ` ipv6=true fixed-cidr-v6="fd09:0:0:1::/64"`},
		{"the file's choice of address and range", "20.10.24", four, `{"bip": "10.9.1.254/24", "fixed-cidr": "10.9.1.128/25"}`, `bip="10.9.1.254/24" fixed-cidr="10.9.1.128/25" ip-masq=false`},
		{"another subnet in the file", "20.10.24", four, `{"bip": "10.9.2.254/24", "fixed-cidr": "10.9.0.0/16"}`, base},
		{"another length in the file", "20.10.24", four, `{"bip": "10.9.1.254/25", "fixed-cidr": "10.9.1.1/25"}`, base},
		{"nonsense in the file", "20.10.24", four, `{"bip": 7, "fixed-cidr": null, "bridge": "", "default-gateway": "10.9.1.1"}`, base},
		{"the smallest subnet", "20.10.24", daemonjson.Bridge{Subnet: prefix("10.9.1.4/30")}, "", `bip="10.9.1.5/30" fixed-cidr="10.9.1.4/30" ip-masq=false`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v daemonjson.Version
			if c.version != "" {
				var err error
				if v, err = daemonjson.ParseVersion(c.version); err != nil {
					t.Fatal(err)
				}
			}
			d, err := daemonjson.Parse([]byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			settings, err := d.Settings(c.bridge, v)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range settings {
				got = append(got, s.Key+"="+string(s.Value))
			}
			if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestContradictions(t *testing.T) {
	b := daemonjson.Bridge{Subnet: prefix("10.9.1.0/24"), Subnet6: prefix("fd09::/64")}
	for in, want := range map[string]string{
		"{\n\"bridge\": \"br0\"}":                   `key "bridge" in line 2 is "br0"`,
		`{"bridge": "none"}`:                        `key "bridge" in line 1 is "none"`,
		`{"bridge": 7}`:                             `key "bridge" in line 1 is "7"`,
		`{"default-gateway": "172.17.0.1"}`:         `want an address in 10.9.1.0/24`,
		`{"default-gateway-v6": "fd00::1"}`:         `want an address in fd09::/64`,
		`{"default-gateway": "10.9.1.1/24"}`:        `want an address in 10.9.1.0/24`,
		`{"a": 1, "default-gateway": ["10.9.1.1"]}`: `want an address in 10.9.1.0/24`,
	} {
		d, err := daemonjson.Parse([]byte(in))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := d.Settings(b, daemonjson.Version{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: says %v, want %q", in, err, want)
		}
	}
}

func TestVersions(t *testing.T) {
	for in, want := range map[string]string{
		"20.10.24+dfsg1": "20.10.24", "28.5.2": "28.5.2", "v29.0": "29.0.0", "27.5.1-1ubuntu2~22": "27.5.1", "28": "28.0.0", "26.1.5": "26.1.5",
		"28.2.0-rc.1": "28.2.0", "19.03.15": "19.3.15",
	} {
		if v, err := daemonjson.ParseVersion(in); err != nil || v.String() != want {
			t.Errorf("%q is %v, error %v, want %s", in, v, err, want)
		}
	}
	for _, in := range []string{"", "latest", "28.x", "-1", "28..5", "0.0.0", "1.2.3.4.5", "library-import"} {
		if v, err := daemonjson.ParseVersion(in); err == nil {
			t.Errorf("%q is %v", in, v)
		}
	}
	if (daemonjson.Version{}).Known() || (daemonjson.Version{}).String() != "unknown" {
		t.Error("the zero version is known")
	}
}

func TestNotes(t *testing.T) {
	b := daemonjson.Bridge{Subnet: prefix("10.9.1.0/24")}
	for _, c := range []struct {
		in, version string
		want        []string
	}{
		{"", "", []string{"--engine-version"}},
		{"", "20.10.24", nil},
		{"", "28.1.0", []string{"publishes"}},
		{"", "28.5.2", nil},
		{`{"ipv6": true}`, "28.5.2", []string{"dockerBridge.pool6"}},
		{`{"ipv6": false}`, "28.5.2", nil},
		{`{"firewall-backend": "nftables"}`, "29.1.0", []string{"set it to iptables"}},
		{`{"firewall-backend": "iptables"}`, "29.1.0", nil},
		{`{"live-restore": true}`, "28.5.2", []string{"stop all of them before Docker is restarted"}},
	} {
		d, err := daemonjson.Parse([]byte(c.in))
		if err != nil {
			t.Fatal(err)
		}
		v, _ := daemonjson.ParseVersion(c.version)
		notes := d.Notes(b, v)
		if len(notes) != len(c.want) {
			t.Errorf("%s %s: notes %q, want %q", c.in, c.version, notes, c.want)
			continue
		}
		for i, w := range c.want {
			if !strings.Contains(notes[i], w) {
				t.Errorf("%s %s: note %q, want in it %q", c.in, c.version, notes[i], w)
			}
		}
	}
}
