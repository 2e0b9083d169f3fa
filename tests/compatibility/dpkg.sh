#!/bin/sh -eu
# A package is built, installed, replaced by apt and removed.
export DEBIAN_FRONTEND=noninteractive
cd /tmp
package() {
	mkdir -p pkg/DEBIAN pkg/usr/bin pkg/etc
	printf 'Package: sample\nVersion: %s\nArchitecture: all\nMaintainer: Somebody <a@example.org>\nDescription: sample\n' "$1" >pkg/DEBIAN/control
	echo /etc/sample >pkg/DEBIAN/conffiles
	echo "setting of $1" >pkg/etc/sample
	printf '#!/bin/sh\necho sample %s\n' "$1" >pkg/usr/bin/sample
	printf '#!/bin/sh -e\necho "postinst $1"\nchown www-data /usr/bin/sample\nchmod 4755 /usr/bin/sample\n' >pkg/DEBIAN/postinst
	printf '#!/bin/sh -e\necho "prerm $1"\n' >pkg/DEBIAN/prerm
	chmod 755 pkg/usr/bin/sample pkg/DEBIAN/postinst pkg/DEBIAN/prerm
	dpkg-deb --root-owner-group -Znone -b pkg "sample_$1.deb" >/dev/null
}
package 1
package 2
dpkg -i sample_1.deb | grep -v '^(Reading'
sample
stat -c '%A %U' /usr/bin/sample
apt-get install -qq -o Dpkg::Use-Pty=0 ./sample_2.deb | grep -v '^(Reading'
sample
cat /etc/sample
dpkg -L sample
dpkg -s sample | grep Status
dpkg -P sample | grep -v '^(Reading'
ls /usr/bin/sample 2>&1 || true
