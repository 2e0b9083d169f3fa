#!/bin/sh -eu
# An interpreter with threads, processes, shared memory, sockets, callbacks from C.
cat >/tmp/work.py <<'P'
import asyncio, concurrent.futures, ctypes, mmap, multiprocessing, os, signal, socket, sqlite3
import subprocess, sys, tempfile, threading
from multiprocessing import shared_memory

def square(n):
    return n * n

def threads():
    total, lock = 0, threading.Lock()
    def add(n):
        nonlocal total
        for _ in range(100):
            with lock:
                total += n
    workers = [threading.Thread(target=add, args=(n,)) for n in range(8)]
    for it in workers: it.start()
    for it in workers: it.join()
    return total

def processes(method):
    context = multiprocessing.get_context(method)
    with context.Pool(2) as pool:
        return pool.map(square, range(5))

def memory():
    it = shared_memory.SharedMemory(create=True, size=4096)
    child = os.fork()
    if child == 0:
        it.buf[0] = 42
        os._exit(0)
    os.waitpid(child, 0)
    value = it.buf[0]
    it.close()
    it.unlink()
    with tempfile.TemporaryFile() as file:
        file.truncate(8192)
        with mmap.mmap(file.fileno(), 8192) as map:
            map[:5] = b"hello"
            map.flush()
        return value, file.read(5)

async def echo():
    async def serve(reader, writer):
        writer.write((await reader.readline()).upper())
        await writer.drain()
        writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", 7001)
    reader, writer = await asyncio.open_connection("127.0.0.1", 7001)
    writer.write(b"over tcp\n")
    line = await reader.readline()
    writer.close()
    server.close()
    child = await asyncio.create_subprocess_exec("tr", "a-z", "A-Z", stdin=-1, stdout=-1)
    said, _ = await child.communicate(b"through a child")
    return line, said, child.returncode

def descriptors():
    left, right = socket.socketpair()
    read, write = os.pipe()
    socket.send_fds(left, [b"x"], [write])
    _, fds, _, _ = socket.recv_fds(right, 1, 1)
    os.write(fds[0], b"passed")
    return os.read(read, 16)

def callback():
    compare = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int), ctypes.POINTER(ctypes.c_int))
    values = (ctypes.c_int * 5)(5, 1, 4, 2, 3)
    ctypes.CDLL(None).qsort(values, 5, 4, compare(lambda a, b: a[0] - b[0]))
    return list(values)

def signals():
    seen = []
    signal.signal(signal.SIGALRM, lambda *_: seen.append("alarm"))
    signal.setitimer(signal.ITIMER_REAL, 0.05)
    while not seen:
        signal.pause()
    return seen

def files():
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "a")
        with open(path, "w") as file:
            file.write("text")
        os.chmod(path, 0o600)
        os.utime(path, (1, 1))
        os.setxattr(path, "user.note", b"kept")
        os.rename(path, path + "b")
        status = os.stat(path + "b")
        return oct(status.st_mode), status.st_mtime, os.getxattr(path + "b", "user.note")

if __name__ == "__main__":
    print("threads", threads())
    for method in "fork", "forkserver":
        print(method, processes(method))
    print("memory", memory())
    print("asyncio", asyncio.run(echo()))
    print("descriptors", descriptors())
    print("callback", callback())
    print("signals", signals())
    print("files", files())
    print("memfd", os.write(os.memfd_create("a"), b"text"))
    print("sqlite", sqlite3.connect(":memory:").execute("select 1 + 1").fetchone())
    print("shell", subprocess.check_output("echo $((6 * 7)) | cat", shell=True, text=True).strip())
    print("priority", os.nice(1), sorted(os.sched_getaffinity(0)))
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        print("pool", list(pool.map(square, range(5))))
P
python3 /tmp/work.py
