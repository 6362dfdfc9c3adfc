import Glibc
import ServiceSupport

/// How the programs of an embedded pool are started: what they are told, and where they keep things.
struct PoolPlan: Sendable {
    let directory: PoolDirectory
    let address: ServerURL
    let port: UInt16
    /// What shows the workers a made-up machine; empty for the real one.
    var rigEnvironment: [String: String] = [:]

    /// How long running jobs may go on when the pool ends.
    static let drain = Duration.seconds(10)

    /// Our own environment without what would point the programs at another pool or another supervisor.
    static var environment: [String: String] {
        let foreign = Set(CommonKeys.all.map(\.name)).subtracting(["LOG_LEVEL"])
            .union(["MAESTRO_CONF", "GPU_WORKER_CONF", "NODE_NAME", "GPU_PINS", "GPU_EXCLUDE"])
            .union(["NOTIFY_SOCKET", "WATCHDOG_USEC", "JOURNAL_STREAM"])
        return HostInfo.environment.filter { !foreign.contains($0.key) }
    }

    private var workerConfiguration: String { directory.path + "/gpu-worker.conf" }

    /// Writes what the programs read. The server's file is ours and written anew each time; the others are for people
    /// to edit and made only when they are missing.
    func writeConfiguration() throws(FatalError) {
        try directory.write(
            """
            # Written by `maestroctl up` at each start.
            listen: "127.0.0.1:\(port)"
            server_name: "maestroctl-up-\(port)"
            max_payload: 8MB
            jetstream {
                store_dir: "\(directory.serverStore)"
                max_file_store: 4GB
            }

            """,
            to: directory.serverConfiguration
        )
        if !directory.exists(directory.maestroConfiguration) {
            try directory.write(
                """
                # Settings of this pool's maestro: `maestro --help` lists the keys. Made by `maestroctl up` and never
                # changed by it. The sizes count when the streams are made.
                STREAM_WQ_MAX_MB=256
                STREAM_RUN_MAX_MB=128
                STREAM_JOBS_MAX_MB=1024
                STREAM_EVENTS_MAX_MB=512
                STREAM_LOGS_MAX_MB=512
                STREAM_CTL_MAX_MB=16

                """,
                to: directory.maestroConfiguration
            )
        }
        if !directory.exists(workerConfiguration) {
            try directory.write(
                """
                # Settings of this pool's workers: `gpu-worker --help` lists the keys. Made by `maestroctl up` and
                # never changed by it.

                """,
                to: workerConfiguration
            )
        }
        try directory.write("\(address.text)\n", to: directory.addressFile)
    }

    // The server is told to die with us at once: it has nothing to finish, and the next `up` needs its store. Maestro
    // and workers are asked to end: workers have processes to take with them.

    func server(_ program: String) -> ChildProcess.Specification {
        ChildProcess.Specification(
            name: "nats-server",
            path: program,
            arguments: ["-c", directory.serverConfiguration],
            environment: Self.environment,
            logFile: directory.log(of: "nats-server"),
            signalAtOurDeath: SIGKILL
        )
    }

    func maestro(_ program: String) -> ChildProcess.Specification {
        var environment = Self.environment
        environment["NATS_URL"] = address.text
        environment["MAESTRO_CONF"] = directory.maestroConfiguration
        return ChildProcess.Specification(
            name: "maestro",
            path: program,
            arguments: [],
            environment: environment,
            logFile: directory.log(of: "maestro"),
            signalAtOurDeath: SIGTERM
        )
    }

    func worker(_ number: Int, _ program: String) -> ChildProcess.Specification {
        var environment = Self.environment
        environment["NATS_URL"] = address.text
        environment["GPU_WORKER_CONF"] = workerConfiguration
        environment["GPU_ID"] = "\(number)"
        environment["MERGE_ROOT"] = directory.caches
        environment["BASE_ROOT"] = directory.caches
        environment["RAM_ROOT"] = directory.memoryCaches
        environment["LOG_ROOT"] = directory.jobLogs
        environment["DRAIN_SEC"] = "\(Self.drain.components.seconds)"
        for (name, value) in rigEnvironment {
            // Libraries of one's own stay reachable behind those of the made-up machine.
            let isSearchPath = name == "LD_LIBRARY_PATH"
            environment[name] =
                isSearchPath ? [value, environment[name]].compactMap { $0 }.joined(separator: ":") : value
        }
        return ChildProcess.Specification(
            name: "gpu-worker \(number)",
            path: program,
            arguments: [],
            environment: environment,
            logFile: directory.log(of: "gpu-worker-\(number)"),
            signalAtOurDeath: SIGTERM
        )
    }
}
