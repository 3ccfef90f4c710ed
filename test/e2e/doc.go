// Package e2e tests fairway on real Docker engines: three hosts of a lab, each with another generation of the engine,
// and the agent as it is installed. The tests are in files named after what they try; none needs another one to have
// run, and each leaves the hosts as it found them, which is checked.
//
//	FAIRWAY_TEST_ROOTFS  suites of the hosts' engines, in turn (default bookworm,trixie,forky)
//	FAIRWAY_TEST_FULL=1  the scale test at its full size
//	FAIRWAY_TEST_BIN     the program to test; default: it is built
//
// The tests of a cluster need etcd on this machine (etcd-server, etcd-client).
//
// Without root, and with -short, the tests are skipped; where CI=true or FAIRWAY_REQUIRE_NETNS=1 lack of root is a failure.
// Lines that begin with "measured:" (go test -v) are figures, not verdicts.
package e2e
