#!/bin/sh
# setup.sh demo|demo-store|test: install what the lab, or the tests too, need on this machine and is missing.
# Installs from the machine's own apt sources only, without questions. Never installs an engine and starts no service:
# the lab's engines come from root file systems of their own.
set -eu

# command, and the package that has it
demo='mmdebstrap:mmdebstrap ip:iproute2 nsenter:util-linux mount:mount'
store='etcd:etcd-server etcdctl:etcd-client'
test="$demo $store nft:nftables iptables:iptables ping:iputils-ping sysctl:procps"
# CI also speaks with other routing daemons; at home those tests are skipped when they are missing.
daemons='/usr/lib/frr/bgpd:frr bird:bird2 netplan:netplan.io /lib/systemd/systemd-networkd:systemd'
case ${1:-} in
demo) wanted=$demo ;;
demo-store) wanted="$demo $store" ;;
test) wanted=$test; [ "${CI:-}" != true ] || wanted="$wanted $daemons" ;;
*) echo "usage: $0 demo|demo-store|test" >&2; exit 2 ;;
esac
PATH=$PATH:/usr/sbin:/sbin

# With an engine on the machine, the demo uses that one: nothing has to be built.
if [ "$1" != test ] && command -v dockerd >/dev/null && command -v containerd >/dev/null && command -v runc >/dev/null; then
	wanted=${wanted#mmdebstrap:mmdebstrap }
fi

missing=
for pair in $wanted; do
	command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair##*:}"
done
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null; then
	echo "setup: missing on this machine:$missing" >&2
	echo "setup: install them and try again (this script knows only apt-get)" >&2
	exit 1
fi
as_root=
if [ "$(id -u)" != 0 ]; then
	as_root=sudo
	command -v sudo >/dev/null || { echo "setup: needs root to install$missing" >&2; exit 1; }
fi
echo "setup: installing$missing"
log=$(mktemp)
trap 'rm -f "$log"' EXIT INT TERM
quietly() {
	$as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@" >"$log" 2>&1 ||
		{ cat "$log" >&2; echo "setup: apt-get $1 failed" >&2; exit 1; }
}
quietly update
# A package may want to start its service, which would then work in the machine's own namespace: not here.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
	trap 'rm -f "$log"; $as_root rm -f "$policy"' EXIT INT TERM
	printf '#!/bin/sh\nexit 101\n' | $as_root tee "$policy" >/dev/null
	$as_root chmod 755 "$policy"
fi
# shellcheck disable=SC2086 # a list of packages
quietly install --yes --no-install-recommends $missing
# Nor at the next boot, for which the package has entered it.
case $missing in
*etcd-server*) ! command -v systemctl >/dev/null || $as_root systemctl disable --quiet etcd.service >"$log" 2>&1 || cat "$log" >&2 ;;
esac
