#!/bin/sh
# Installs fairway from this tree: the binary, the systemd unit and the name of our routes. It starts nothing.
# Usage: packaging/install.sh [DESTDIR]
set -eu
cd "$(dirname "$0")/.."
dest=${1:-}
[ -x bin/fairway ] || { echo "install: bin/fairway is missing; run 'make build' first" >&2; exit 1; }
install -D -m 755 bin/fairway "$dest/usr/local/bin/fairway"
install -D -m 644 packaging/systemd/fairway.service "$dest/etc/systemd/system/fairway.service"
install -D -m 644 packaging/iproute2/fairway.conf "$dest/etc/iproute2/rt_protos.d/fairway.conf"
if [ -d "$dest/etc/systemd/network" ]; then
	install -D -m 644 packaging/systemd/10-fairway.network "$dest/etc/systemd/network/10-fairway.network"
	install -D -m 644 packaging/systemd/10-fairway-networkd.conf "$dest/etc/systemd/networkd.conf.d/10-fairway.conf"
fi
if [ -d "$dest/etc/NetworkManager/conf.d" ]; then
	install -D -m 644 packaging/10-fairway-networkmanager.conf "$dest/etc/NetworkManager/conf.d/10-fairway.conf"
fi
echo "installed. Next: edit /etc/fairway/fairway.yaml (optional), then: systemctl daemon-reload && systemctl enable --now fairway"
