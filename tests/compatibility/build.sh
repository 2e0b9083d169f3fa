#!/bin/sh -eu
# A build: make, a compiler, a shared library that is loaded while the program runs, code in memory.
mkdir /tmp/build
cd /tmp/build
cat >add.c <<'C'
int add(int a, int b) { return a + b; }
C
cat >main.c <<'C'
#include <dlfcn.h>
#include <stdio.h>
int main(int count, char **words) {
	void *library = dlopen(words[1], RTLD_NOW);
	int (*add)(int, int) = library ? dlsym(library, "add") : 0;
	if (!add) { puts(dlerror()); return 1; }
	printf("%d\n", add(2, 3));
	return count - 2;
}
C
cat >Makefile <<'M'
all: main libadd.so
main: main.c ; tcc -o $@ $<
libadd.so: add.c ; tcc -shared -o $@ $<
check: all ; ./main ./libadd.so
clean: ; rm -f main libadd.so
M
make -j 2 -O --no-print-directory check | sort
make -q all && echo up to date
printf '#include <stdio.h>\nint main(void) { puts("in memory"); }\n' | tcc -run -
./main ./absent.so || echo "exit code $?"
make --no-print-directory clean
ls
