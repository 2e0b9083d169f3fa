#!/bin/sh -eu
# An interpreter with children, pipes, System V shared memory and semaphores.
cat >/tmp/work.pl <<'P'
use strict; use warnings;
use File::Temp qw(tempfile); use IPC::Open3; use IPC::SysV qw(IPC_PRIVATE IPC_CREAT IPC_RMID S_IRUSR S_IWUSR);
use Socket; use IO::Socket::INET; use POSIX ();
$| = 1;
my $memory = shmget(IPC_PRIVATE, 64, IPC_CREAT | S_IRUSR | S_IWUSR) // die "shmget: $!";
my $lock = semget(IPC_PRIVATE, 1, IPC_CREAT | S_IRUSR | S_IWUSR) // die "semget: $!";
pipe(my $read, my $write) or die;
my $child = fork // die;
if (!$child) {
	shmwrite($memory, "from the child", 0, 14) or die;
	semop($lock, pack("s3", 0, 1, 0)) or die;
	print $write "a line\n"; close $write;
	POSIX::_exit(7);
}
close $write;
semop($lock, pack("s3", 0, -1, 0)) or die;
shmread($memory, my $said, 0, 14) or die;
print "memory: $said\npipe: ", scalar <$read>;
waitpid $child, 0;
print "child: ", $? >> 8, "\n";
shmctl($memory, IPC_RMID, 0) or die; semctl($lock, 0, IPC_RMID, 0) or die;
my ($file, $name) = tempfile(); print $file "kept\n"; close $file;
print "file: ", -s $name, "\n"; unlink $name or die;
my $server = IO::Socket::INET->new(Listen => 1, LocalAddr => '127.0.0.1') or die "$@";
if (!fork) { my $it = IO::Socket::INET->new($server->sockhost . ':' . $server->sockport); print $it "hello\n"; POSIX::_exit(0) }
print "socket: ", $server->accept->getline; wait;
my $other = open3(my $in, my $out, undef, 'sort', '-r'); print $in "$_\n" for 1 .. 3; close $in;
print "sorted: ", join(' ', map { chomp; $_ } <$out>), "\n"; waitpid $other, 0;
local $SIG{USR1} = sub { print "signal\n" }; kill 'USR1', $$;
print "words: ", join(',', map { scalar reverse } 'abc def' =~ /(\w+)/g), "\n";
P
perl /tmp/work.pl
