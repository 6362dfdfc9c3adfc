import Glibc
import JobModel
import JobTransport
import NATSClient
import ServiceSupport

@testable import MaestroCtl

/// A private nats-server with JetStream, for one test.
final class RealServer {
    let port: UInt16
    let directory: String
    private var child: ChildProcess?

    var url: String { "nats://127.0.0.1:\(port)" }

    init() throws {
        guard let port = LoopbackPort.available(0) else { throw FatalError(.failure, "no free port") }
        self.port = port
        directory = "/tmp/maestroctl-test-\(UInt64.random(in: 0 ... .max))"
        try PoolDirectory.make(directory)
        try start()
    }

    func start() throws {
        child = try ChildProcess(
            ChildProcess.Specification(
                name: "nats-server",
                path: Executables.natsServer(named: nil),
                arguments: ["-a", "127.0.0.1", "-p", "\(port)", "-js", "-sd", directory],
                environment: HostInfo.environment,
                logFile: directory + "/log",
                signalAtOurDeath: SIGKILL
            )
        )
    }

    /// Ends it like a crash.
    func kill() async {
        child?.signal(SIGKILL)
        _ = await child?.wait()
    }

    deinit {
        child?.signal(SIGKILL)
        do {
            let remover = ChildProcess.Specification(
                name: "rm",
                path: "/bin/rm",
                arguments: ["-rf", directory],
                environment: [:],
                logFile: nil,
                signalAtOurDeath: 0
            )
            _ = try ChildProcess(remover)
        } catch {
            // What is left in /tmp harms nothing.
        }
    }

    /// A client of the pool on this server; its streams exist.
    func client(makingStreams: Bool = true) async throws -> PoolClient {
        let override = Settings.Override(key: "NATS_URL", flag: "--server", value: url)
        let schema = SettingsSchema(defaultFile: nil, fileVariable: nil, keys: CommonKeys.all)
        let settings = try Settings(schema: schema, overrides: [override], environment: { _ in nil })
        let client = try await PoolClient(settings: settings, patience: .seconds(30))
        guard makingStreams else { return client }
        var limits = StreamLimits.standard
        limits.workQueueBytes = 64 << 20
        limits.runBytes = 64 << 20
        limits.jobsBytes = 64 << 20
        limits.eventsBytes = 64 << 20
        limits.logsBytes = 64 << 20
        try await PoolStreams(names: client.names, limits: limits).ensureAll(client.jetStream)
        return client
    }
}
