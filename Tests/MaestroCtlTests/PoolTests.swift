import Dispatch
import Glibc
import ServiceSupport
import Synchronization
import Testing

@testable import MaestroCtl

/// A directory of one test.
private final class Scratch {
    let path = "/tmp/maestroctl-pool-\(UInt64.random(in: 0 ... .max))"
    init() throws {
        try PoolDirectory.make(path)
        try #require(mkfifo(path + "/ready", 0o600) == 0)
    }

    /// Waits until a script has opened `$DIR/ready` for writing.
    func waitUntilReady() async {
        let fifo = path + "/ready"
        await withCheckedContinuation { continuation in
            DispatchQueue(label: "ready").async {
                close(open(fifo, O_RDONLY | O_CLOEXEC))
                continuation.resume()
            }
        }
    }

    deinit {
        for name in ["log", "count", "ready"] { unlink("\(path)/\(name)") }
        rmdir(path)
    }
}

private func shell(_ script: String, in scratch: Scratch) -> ChildProcess.Specification {
    ChildProcess.Specification(
        name: "sh",
        path: "/bin/sh",
        arguments: ["-c", script],
        environment: ["PATH": "/usr/bin:/bin", "DIR": scratch.path],
        logFile: scratch.path + "/log",
        signalAtOurDeath: SIGKILL
    )
}

@Suite("Child processes")
struct ChildProcessTests {
    @Test(arguments: [("exit 7", ChildProcess.End.exit(7)), ("kill -KILL $$", .signal(SIGKILL)), ("exit 0", .exit(0))])
    func theEndIsToldAsItWas(_ script: String, _ end: ChildProcess.End) async throws {
        let scratch = try Scratch()
        let child = try ChildProcess(shell(script, in: scratch))
        #expect(await child.wait() == end)
        // A second waiter hears the same, and signals go nowhere.
        child.signal(SIGKILL)
        #expect(await child.wait() == end)
    }

    @Test func outputGoesToTheLogAndTheEnvironmentIsExact() async throws {
        let scratch = try Scratch()
        let child = try ChildProcess(shell("echo out; echo err >&2; echo \"${HOME-none}\"", in: scratch))
        #expect(await child.wait() == .exit(0))
        let log = try FileContents.read(scratch.path + "/log", limit: 1000)
        #expect(String(decoding: log, as: UTF8.self) == "out\nerr\nnone\n")
    }

    @Test func aProgramThatIsNotThereIsTold() throws {
        let scratch = try Scratch()
        var specification = shell("", in: scratch)
        specification.path = "/nonexistent/program"
        let error = #expect(throws: FatalError.self) { try ChildProcess(specification) }
        #expect(error?.message == "/nonexistent/program cannot be started: No such file or directory")
    }
}

@Suite("Talking with a child")
struct ChildLineTests {
    private func talk(_ script: String) throws -> (ChildLine, ChildProcess) {
        let line = try ChildLine()
        let child = try line.start(
            ChildProcess.Specification(
                name: "sh",
                path: "/bin/sh",
                arguments: ["-c", script],
                environment: ["PATH": "/usr/bin:/bin"],
                signalAtOurDeath: SIGKILL
            )
        )
        return (line, child)
    }

    @Test func itsFirstLineIsHeardAndItsInputEndsWhenWeHangUp() async throws {
        let (line, child) = try talk("echo hello; echo more; cat; exit 3")
        #expect(await line.firstLine(within: .seconds(60)) == "hello")
        line.hangUp()
        #expect(await child.wait() == .exit(3))
    }

    @Test func whatItSaysBeforeItsEndIsHeardWithoutANewline() async throws {
        let (line, child) = try talk("printf 'bad luck' >&2; exit 1")
        #expect(await line.firstLine(within: .seconds(60)) == "bad luck")
        #expect(await child.wait() == .exit(1))
    }

    @Test func aSilentChildIsNotWaitedForForEver() async throws {
        let (line, child) = try talk("exec sleep 600")
        #expect(await line.firstLine(within: .zero) == "")
        child.signal(SIGKILL)
        #expect(await child.wait() == .signal(SIGKILL))
    }

    @Test func itsInputEndsWhenTheLineGoes() async throws {
        var (line, child): (ChildLine?, ChildProcess) = try talk("cat; exit 4")
        #expect(line != nil)
        line = nil
        #expect(await child.wait() == .exit(4))
        child.signal(SIGKILL)
    }
}

@Suite("Supervised programs")
struct SupervisedTests {
    @Test func aProgramThatDiesIsStartedAgainAndEndsWhenTold() async throws {
        let scratch = try Scratch()
        let (deaths, tell) = AsyncStream.makeStream(of: String.self)
        let script =
            "echo x >> $DIR/count; [ $(wc -l < $DIR/count) -ge 3 ] || exit 5; trap 'kill $!; exit 0' TERM; : > $DIR/ready; sleep 600 & wait"
        let program = Supervised(shell(script, in: scratch)) { tell.yield($0) }
        async let run: Void = program.run()
        var iterator = deaths.makeAsyncIterator()
        let first = await iterator.next()
        #expect(first?.hasPrefix("sh died (exit code 5) after ") == true)
        #expect(await iterator.next() != nil)
        await scratch.waitUntilReady()
        #expect(program.processID != nil)
        await program.stop(grace: .seconds(30))
        try await run
        #expect(program.processID == nil)
    }

    @Test func whatRefusesItsConfigurationIsNotStartedAgain() async throws {
        let scratch = try Scratch()
        let program = Supervised(shell("echo 'maestro: X: bad'; exit 78", in: scratch)) { Issue.record("told: \($0)") }
        let error = await #expect(throws: FatalError.self) { try await program.run() }
        #expect(error?.code == .configuration)
        #expect(error?.message.contains("maestro: X: bad") == true)
    }

    @Test func whatDoesNotEndWhenToldIsKilled() async throws {
        let scratch = try Scratch()
        let told = Mutex<[String]>([])
        let program = Supervised(shell("trap '' TERM; : > $DIR/ready; while :; do sleep 1; done", in: scratch)) {
            line in
            told.withLock { $0.append(line) }
        }
        async let run: Void = program.run()
        await scratch.waitUntilReady()
        await program.stop(grace: .milliseconds(100))
        try await run
        #expect(told.withLock { $0 } == ["sh did not end within 0.10s; it is killed"])
    }
}

@Suite("The directory of a pool")
struct PoolDirectoryTests {
    @Test func oneUpAtATimeHasIt() throws {
        let path = "/tmp/maestroctl-pool-\(UInt64.random(in: 0 ... .max))/deep"
        let first = try PoolDirectory(path)
        let error = #expect(throws: FatalError.self) { try PoolDirectory(path) }
        #expect(error?.message.contains("(process \(getpid()))") == true)
        try first.write("text", to: first.addressFile)
        #expect(try FileContents.read(first.addressFile, limit: 10) == Array("text".utf8))
    }

    @Test func aTakenPortIsSeen() throws {
        let port = try #require(LoopbackPort.available(0))
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(INADDR_LOOPBACK).bigEndian
        address.sin_port = port.bigEndian
        let isListening = withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0 && listen(descriptor, 1) == 0
            }
        }
        try #require(isListening)
        #expect(LoopbackPort.available(port) == nil)
    }
}
