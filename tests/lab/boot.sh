# The first process of a lab host: bash boot.sh DIR NAME, in new mount, UTS, IPC, PID and network namespaces.
set -eu
dir=$1 name=$2
hostname "$name"
mount --make-rprivate /
for path in etc root run tmp opt var/lib/libvirt var/cache/libvirt var/log/libvirt var/lib/nodeagent; do
    mount --bind "$dir/$path" "/$path"
done
mount -t sysfs sysfs /sys
# All hosts would show this machine's hardware identity: none is shown, as in a small cloud machine.
if [ -d /sys/class/dmi/id ]; then mount -t tmpfs tmpfs /sys/class/dmi/id || true; fi
cat /proc/sys/kernel/random/uuid > /run/boot_id
mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
mkdir -p /run/sshd /run/libvirt /run/lock
virtlogd -d
/usr/sbin/sshd
libvirtd -d
if [ -x /etc/rc.local ]; then /etc/rc.local </dev/null >/run/rc.local.log 2>&1 || true; fi
trap 'exit 0' TERM
while :; do sleep 1000 & wait || true; done
