import EventLoop
import Glibc
import Synchronization

@testable import NATSClient

/// A private nats-server on a free port, with its JetStream store in a directory of its own.
///
/// The program is named by NATS_SERVER, else `nats-server` on PATH. Ends with its last reference.
final class TestServer: Sendable {
    struct Failure: Error, CustomStringConvertible { let description: String }

    let port: UInt16
    let directory: String
    private let process = Mutex<pid_t?>(nil)

    var url: String { "nats://127.0.0.1:\(port)" }

    private let jetStream: Bool

    /// Reserves a port and a directory; starts the server unless told not to.
    ///
    /// - Parameter extra: more lines for its configuration file, given its directory.
    init(jetStream: Bool = true, running: Bool = true, extra: (String) -> String = { _ in "" }) throws {
        port = try Self.freePort()
        self.jetStream = jetStream
        var template = Array("/tmp/nats-test-XXXXXX".utf8CString)
        directory = try template.withUnsafeMutableBufferPointer { buffer in
            guard let start = buffer.baseAddress, let path = mkdtemp(start) else {
                throw Failure(description: "mkdtemp: \(errno)")
            }
            return String(cString: path)
        }
        try configure(extra)
        if running { try start() }
    }

    /// Writes the configuration that the next start uses.
    func configure(_ extra: (String) -> String) throws {
        let store = jetStream ? "jetstream { store_dir: \"\(directory)/store\" }" : ""
        let text = "listen: \"127.0.0.1:\(port)\"\nserver_name: test-\(port)\n\(store)\n\(extra(directory))\n"
        try Self.write(text, to: directory + "/nats.conf")
    }

    deinit {
        kill()
        // What is left of it in /tmp after a failure harms nothing.
        if let remover = try? Self.run("/bin/rm", ["-rf", directory]) { Self.reap(remover) }
    }

    /// Starts the server; returns before it listens.
    func start() throws {
        let program = getenv("NATS_SERVER").map { String(cString: $0) } ?? "nats-server"
        let pid = try Self.run(program, ["-c", directory + "/nats.conf", "-l", directory + "/log"])
        process.withLock { $0 = pid }
    }

    /// Kills the server like a crash and waits for its end.
    func kill() {
        guard
            let pid = process.withLock({ pid in
                defer { pid = nil }; return pid
            })
        else { return }
        _ = Glibc.kill(pid, SIGKILL)
        Self.reap(pid)
    }

    /// Stops the server's execution, so that it answers nothing while its connections stand.
    func freeze() {
        signal(SIGSTOP)
        var status: Int32 = 0
        // Its threads run on until the last one has seen the signal.
        process.withLock { if let pid = $0 { _ = waitpid(pid, &status, WUNTRACED) } }
    }

    func thaw() { signal(SIGCONT) }

    private func signal(_ number: Int32) { process.withLock { if let pid = $0 { _ = Glibc.kill(pid, number) } } }

    static func write(_ text: String, to path: String) throws {
        guard let file = fopen(path, "w") else { throw Failure(description: "cannot write \(path)") }
        fputs(text, file)
        fclose(file)
    }

    private static func run(_ program: String, _ arguments: [String]) throws -> pid_t {
        var argv = ([program] + arguments).map { strdup($0) } + [nil]
        defer { for argument in argv { free(argument) } }
        var pid: pid_t = 0
        let status = posix_spawnp(&pid, program, nil, nil, &argv, environ)
        if status != 0 { throw Failure(description: "cannot start \(program): \(Errno(status))") }
        return pid
    }

    private static func reap(_ pid: pid_t) {
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0 && errno == EINTR {}
    }

    /// A port below the range that the system gives to outgoing connections, so that nothing takes it while the
    /// server is down.
    static func freePort() throws -> UInt16 {
        for _ in 0..<1000 {
            let port = UInt16.random(in: 12_000...31_999)
            if usedPorts.withLock({ $0.insert(port).inserted }), isFree(port) { return port }
        }
        throw Failure(description: "no free port")
    }

    private static let usedPorts = Mutex<Set<UInt16>>([])

    private static func isFree(_ port: UInt16) -> Bool {
        let descriptor = Loopback.socket()
        defer { close(descriptor) }
        return Loopback.call(bind, descriptor, port) == 0
    }
}

/// Sockets of this host alone.
enum Loopback {
    /// Closed on exec, so that no server started at the same time holds its port.
    static func socket() -> Int32 {
        Glibc.socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
    }

    /// What `bind` or `connect` comes to with a port.
    static func call(
        _ function: (Int32, UnsafePointer<sockaddr>?, socklen_t) -> Int32,
        _ descriptor: Int32,
        _ port: UInt16
    ) -> Int32 {
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr.s_addr = UInt32(INADDR_LOOPBACK).bigEndian
        address.sin_port = port.bigEndian
        return withUnsafePointer(to: &address) { pointer in
            pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                function(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size))
            }
        }
    }
}

/// Collects values from callbacks; a test waits until they are what it expects.
final class Collector<Value: Sendable>: Sendable {
    private struct State {
        var values: [Value] = []
        var waiters: [UInt: (condition: ([Value]) -> Bool, continuation: CheckedContinuation<Bool, Never>)] = [:]
    }
    private let state = Mutex(State())

    var values: [Value] { state.withLock { $0.values } }

    func add(_ value: Value) {
        let ready = state.withLock { state in
            state.values.append(value)
            let ready = state.waiters.filter { $0.value.condition(state.values) }
            for key in ready.keys { state.waiters[key] = nil }
            return ready.values.map(\.continuation)
        }
        for continuation in ready { continuation.resume(returning: true) }
    }

    /// Waits until the condition holds. False when it still does not after a generous time.
    func wait(seconds: Int = 90, until condition: @escaping @Sendable ([Value]) -> Bool) async -> Bool {
        let number = CallbackRegistry.makeNumber()
        return await withCheckedContinuation { continuation in
            let holds = state.withLock { state in
                if condition(state.values) { return true }
                state.waiters[number] = (condition, continuation)
                return false
            }
            if holds { return continuation.resume(returning: true) }
            Task {
                try await Task.sleep(for: .seconds(seconds))
                let late = state.withLock { $0.waiters.removeValue(forKey: number) }
                late?.continuation.resume(returning: false)
            }
        }
    }

    func wait(seconds: Int = 90, count: Int) async -> Bool { await wait(seconds: seconds) { $0.count >= count } }
}

extension TestServer {
    /// A connection to this server that stands.
    func connect(_ change: (inout NATSConnectionOptions) -> Void = { _ in }) async throws -> NATSConnection {
        let connection = try makeConnection(change)
        try connection.start()
        try await connection.waitUntilConnected(deadline: .seconds(30))
        return connection
    }

    func makeConnection(_ change: (inout NATSConnectionOptions) -> Void = { _ in }) throws -> NATSConnection {
        var options = NATSConnectionOptions(urls: [url], name: "test")
        change(&options)
        return try NATSConnection(options: options)
    }

    /// JetStream on a new connection, with a stream of one message per subject on `records.*` and one log on `log.>`.
    func jetStream() async throws -> JetStream {
        let jetStream = JetStream(try await connect(), deadline: .seconds(60))
        try await jetStream.waitUntilReady()
        _ = try await jetStream.createOrCheckStream([
            "name": "RECORDS", "subjects": ["records.*"], "storage": "file", "max_msgs_per_subject": 1,
            "discard": "new", "allow_direct": true,
        ])
        _ = try await jetStream.createOrCheckStream(["name": "LOG", "subjects": ["log.>"], "storage": "file"])
        return jetStream
    }
}

extension JetStream {
    /// A server accepts connections a little before JetStream answers.
    func waitUntilReady() async throws {
        var retry = RetryPace(until: .now + .seconds(30))
        while true {
            do throws(JetStreamError) {
                _ = try await accountInfo()
                return
            } catch .unknown(let error) {
                if let final = await retry.wait(after: error, for: connection) { throw final }
            }
        }
    }
}

extension PublishOutcome {
    var ack: PublishAck? { if case .stored(let ack) = self { ack } else { nil } }
    var refusal: JetStreamAPIError? { if case .refused(let error) = self { error } else { nil } }
    var unknownError: NATSError? { if case .unknown(let error) = self { error } else { nil } }
}

func bytes(_ text: String) -> [UInt8] { Array(text.utf8) }
