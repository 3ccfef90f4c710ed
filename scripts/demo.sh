#!/bin/bash
# demo.sh: the lab, and in it containers on three hosts that reach each other. Needs root. Takes the lab down at its
# end, also when interrupted, unless KEEP is set or the lab was up before. With STORE=etcd the lab has a store.
set -euo pipefail
cd "$(dirname "$0")/.."
fairway=bin/fairway
lab=${FAIRWAY_LAB_DIR:-/run/fairway-lab}

if [ -e "$lab/lab.json" ]; then
	echo "A lab is up already; this is the demo in it. It stays up: take it down with \`make demo-down\`."
	exec "$fairway" lab demo
fi

finish() {
	code=$?
	trap - EXIT INT TERM
	if [ -n "${KEEP:-}" ] && [ $code = 0 ]; then
		echo
		echo "The lab stays up. Take it down with: make demo-down"
	else
		"$fairway" lab down
		[ $code != 0 ] || echo "To keep it up and try these things: KEEP=1 make demo${STORE:+-store}"
	fi
	exit $code
}
trap finish EXIT
trap 'exit 130' INT TERM

"$fairway" lab up --hosts 3 ${STORE:+--store "$STORE"} ${DEMO_ROOTFS:+--rootfs "$DEMO_ROOTFS"}
echo
"$fairway" lab demo
