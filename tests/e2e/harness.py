"""What every end-to-end test needs: real processes on loopback, and stubs of our .proto files."""
import atexit
import glob
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest

BIN = os.environ.get("ROPEWALK_BIN", "build/release/bin")
STUBS = os.environ.get("ROPEWALK_STUBS", "build/release/generated/python")
MODEL = "models/demo"

try:
    sys.path.insert(0, STUBS)
    import grpc
    from proto import health_pb2, health_pb2_grpc, inference_pb2, inference_pb2_grpc
except ImportError as error:
    required = os.environ.get("ROPEWALK_E2E") == "required"
    print(f"{'FAILED' if required else 'SKIP'}: {error}: python3-grpcio and the generated stubs are needed")
    sys.exit(1 if required else 77)

MPI_ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_pml": "ob1", "OMPI_MCA_btl": "self,vader",
    "OMPI_MCA_btl_vader_single_copy_mechanism": "none",
    "OMPI_MCA_odls_base_sigkill_timeout": "0",  # as `ropewalk serve` sets it
    # Open MPI's own allocations at exit are not ours to free; leaks of our code are the unit tests' matter.
    "ASAN_OPTIONS": "detect_leaks=0",
}


def read(path):
    with open(path, errors="replace") as f:
        return f.read()


class Process:
    """A child that cannot outlive the test, with its output in a file."""

    def __init__(self, *argv):
        self.log = tempfile.NamedTemporaryFile(prefix="ropewalk-e2e-", suffix=".log", delete=False)
        environment = {**os.environ, **MPI_ENVIRONMENT}
        self.child = subprocess.Popen(argv, stdout=self.log, stderr=subprocess.STDOUT,
                                      stdin=subprocess.DEVNULL, env=environment, start_new_session=True)
        atexit.register(self.end)

    @property
    def pid(self):
        return self.child.pid

    def output(self):
        return read(self.log.name)

    def running(self):
        return self.child.poll() is None

    def wait(self, seconds):
        return self.child.wait(timeout=seconds)

    def end(self, seconds=10):
        """SIGTERM, then SIGKILL; returns the exit status."""
        if self.running():
            self.child.send_signal(signal.SIGTERM)
            try:
                self.child.wait(timeout=seconds)
            except subprocess.TimeoutExpired:
                self.child.kill()
                self.child.wait(timeout=5)
        if os.path.exists(self.log.name):
            self.log.close()
        return self.child.returncode

    def remove_log(self):
        self.end()
        os.unlink(self.log.name)


def wait_until(what, seconds, why):
    """Polls what() until it is true; fails with why() otherwise."""
    until = time.monotonic() + seconds
    while not what():
        if time.monotonic() > until:
            raise AssertionError(f"not within {seconds} s: {why}")
        time.sleep(0.02)


class Client:
    """What a client asks of the coordinator at an address."""

    def __init__(self, address):
        self.channel = grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", 64 << 20),
                                                               ("grpc.use_local_subchannel_pool", 1)])
        self.inference = inference_pb2_grpc.InferenceStub(self.channel)
        self.health = health_pb2_grpc.HealthStub(self.channel)

    def status(self):
        return self.health.Check(health_pb2.HealthCheckRequest(), timeout=5).status

    def serving(self):
        return self.status() == health_pb2.HealthCheckResponse.SERVING

    def info(self):
        return self.inference.ModelInfo(inference_pb2.ModelInfoRequest(), timeout=5)


class Coordinator(Process, Client):
    def __init__(self, *options, listen="127.0.0.1:0", attach="127.0.0.1:0"):
        self.port_file = tempfile.mktemp(prefix="ropewalk-ports-")
        Process.__init__(self, f"{BIN}/ropewalk-coordinator", "--listen", listen, "--attach", attach,
                         "--port-file", self.port_file, *options)

        def listening():
            if not self.running():
                raise AssertionError("coordinator ended:\n" + self.output())
            return os.path.exists(self.port_file) and read(self.port_file).endswith("\n")

        wait_until(listening, 20, "the coordinator listens")
        self.listen_port, self.attach_port = map(int, read(self.port_file).split())
        os.unlink(self.port_file)
        Client.__init__(self, f"127.0.0.1:{self.listen_port}")


class Group(Process):
    """mpirun -n ranks ropewalk-worker; threads of None: as many as the worker takes by itself."""

    def __init__(self, coordinator, *options, ranks=2, model=MODEL, kv="bf16", attach_port=None, threads=1):
        self.ranks = ranks
        port = attach_port or coordinator.attach_port
        super().__init__("mpirun", "--oversubscribe", "--bind-to", "none", "-n", str(ranks),
                         f"{BIN}/ropewalk-worker", "--coordinator", f"127.0.0.1:{port}",
                         "--model", model, "--kv", kv, *(("--threads", str(threads)) if threads else ()), *options)

    def wait_serving(self, coordinator, seconds=60):
        def ready():
            if not self.running():
                raise AssertionError("the group ended:\n" + self.output())
            return coordinator.serving()

        wait_until(ready, seconds, "the group attaches\n" + self.output())

    def worker_pids(self):
        return [pid for pid in children_of(self.pid) if command_of(pid).endswith("ropewalk-worker")]


def children_of(pid):
    found = []
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.split("/")[2]))
    return sorted(found)


def command_of(pid):
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            return f.read().split(b"\0")[0].decode()
    except OSError:
        return ""


def exists(pid):
    """True while the process runs; a zombie does not."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def request(ids=None, text=None, **fields):
    r = inference_pb2.GenerateRequest()
    if ids is not None:
        r.token_ids.ids.extend(ids)
    if text is not None:
        r.text = text
    for name, value in fields.items():
        if name in ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed"):
            setattr(r.sampling, name, value)
        elif name in ("max_new_tokens", "ignore_eos", "include_stop"):
            setattr(r.stopping, name, value)
        elif name in ("stop", "stop_token_ids"):
            getattr(r.stopping, name).extend(value)
        else:
            setattr(r, name, value)
    return r


class Result:
    """A whole Generate stream."""

    def __init__(self, events):
        self.ids, self.text, self.prefill, self.logprobs, self.finished = [], "", [], [], None
        for event in events:
            assert self.finished is None, "an event after Finished"
            kind = event.WhichOneof("event")
            if kind == "prefill":
                self.prefill.append((event.prefill.done, event.prefill.total))
            elif kind == "tokens":
                self.ids.extend(event.tokens.ids)
                self.text += event.tokens.text
                self.logprobs.extend(event.tokens.logprobs)
            else:
                self.finished = event.finished
        assert self.finished is not None, "no Finished"


def generate(coordinator, r, timeout=120):
    return Result(coordinator.inference.Generate(r, timeout=timeout))


def code_of(call):
    """Runs call() which must fail; returns (code, text)."""
    try:
        call()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("the call did not fail")


def main():
    unittest.main(verbosity=2)
