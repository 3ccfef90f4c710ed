//go:build race

package bgp_test

const raceDetector = true
