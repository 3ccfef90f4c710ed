package config

// Setting is one effective value and where it came from.
type Setting struct {
	Key    string `json:"key"`    // "bgp.holdTime", "bgp.peers[0].address"
	Value  string `json:"value"`  // as it is written in the file, without quotes
	Origin string `json:"origin"` // "default", "file:LINE", "env NAME" or "flag --x"
}

// Change is one key whose value differs between two configs. Members of a list are named
// by what they are, not by their place: "bgp.peers[10.77.0.1].holdTime".
type Change struct {
	Key string `json:"key"`
	Old string `json:"old"` // "" if it was not there
	New string `json:"new"` // "" if it is gone
}
