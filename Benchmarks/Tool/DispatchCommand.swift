import ArgumentParser
import Foundation
import JobModel
import JobTransport
import NATSClient
import Synchronization
import WireJSON

/// What every command that talks to a pool needs to know.
struct PoolOptions: ParsableArguments {
    @Option(help: "The server.")
    var url = "nats://127.0.0.1:4222"
    @Option(name: .customLong("cards"), help: "Simulated cards.")
    var cardCount = 12
    @Option(help: "Slots of each.")
    var slots = 2
    @Option(name: .customLong("watch"), help: "A process whose processor time and memory are told: name=pid.")
    var watched: [String] = []

    var processes: [WatchedProcess] { watched.compactMap { WatchedProcess($0) } + [.this] }

    func connect(_ name: String) async throws -> NATSConnection {
        let connection = try NATSConnection(options: NATSConnectionOptions(urls: [url], name: name))
        try connection.start()
        try await connection.waitUntilConnected(deadline: .seconds(10))
        return connection
    }
}

/// Jobs through a real maestro and a real server, with simulated workers that finish at once: the cost of dispatch alone.
struct DispatchCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "dispatch",
        abstract: "Jobs per second with simulated workers, and what that costs each process.",
        discussion: """
            Each job is 8 stored messages: its submission, its record four times (enqueued, scheduled, running,
            done), its run message, its done event and its result. The simulated workers claim and commit by
            compare-and-set like real ones; they share one consumer.
            """
    )

    /// Stored messages per job, and what they are.
    static let writes = [
        "submission", "record enqueued", "record scheduled", "run", "record running", "record done", "done event",
        "result",
    ]

    @OptionGroup var pool: PoolOptions
    @Option(help: "Jobs.")
    var jobs = 20_000
    @Flag(help: "Submit and admit all jobs before the first card is there, and measure what follows: 6 messages.")
    var preload = false

    func run() async throws {
        let connection = try await pool.connect("maestro-bench")
        let fleet = try await SimulatedFleet(pool)
        let run = String(UInt32.random(in: 0...UInt32.max), radix: 16)
        var submitSeconds = 0.0
        if preload {
            submitSeconds = try await submit(connection, run)
            try await waitForQueue(connection)
        }
        try await fleet.start()
        let before = pool.processes.map(\.processorSeconds)
        let clock = ContinuousClock()
        let start = clock.now
        if !preload { submitSeconds = try await submit(connection, run) }
        try await fleet.waitForResults(jobs, deadline: .seconds(300))
        let elapsed = seconds(clock.now - start)
        show([
            "jobs": .int(jobs), "cards": .int(pool.cardCount), "slots": .int(pool.slots), "seconds": .double(elapsed),
            "per_second": .double(Double(jobs) / elapsed), "submit_per_second": .double(Double(jobs) / submitSeconds),
            "writes_per_job": .int(preload ? Self.writes.count - 2 : Self.writes.count),
            "writes": .array(Self.writes.map { .string($0) }), "stale": .int(fleet.staleClaims),
            "processes": processes(before),
        ])
        await fleet.stop()
    }

    private func processes(_ before: [Double?]) -> JSON {
        var object = JSONObject()
        for (process, earlier) in zip(pool.processes, before) {
            guard let now = process.processorSeconds, let earlier else { continue }
            object[process.name] = [
                "us_per_job": .double((now - earlier) * 1e6 / Double(jobs)),
                "resident_mb": .double(process.residentMegabytes ?? 0),
            ]
        }
        return .object(object)
    }

    /// - Returns: the seconds until all were acked.
    private func submit(_ connection: NATSConnection, _ run: String) async throws -> Double {
        let names = PoolNames()
        let clock = ContinuousClock()
        let start = clock.now
        let submissions = (0..<jobs).lazy.map { number -> Result<Submission, Never> in
            let id = JobID("b\(run)-\(number)") ?? .derived(timestamp: 0, sequence: UInt64(number))
            let task: JSON = ["task_id": .string(id.text), "cmd": ["/bin/true"], "max_retries": 0]
            return .success(Submission(id: id, exactly: task.encoded()))
        }
        var refused: SubmissionOutcome?
        await Submitter(JetStream(connection), names: names, window: 4096).submit(
            submissions,
            patience: .seconds(60)
        ) { _, outcome in
            if case .stored = outcome { return }
            refused = outcome
        }
        if let refused { throw ValidationError("a submission was not stored: \(refused)") }
        return seconds(clock.now - start)
    }

    /// Waits until all jobs were admitted.
    private func waitForQueue(_ connection: NATSConnection) async throws {
        let names = PoolNames()
        for _ in 0..<3000 {
            let answer = try await connection.request([], to: names.request("status"), deadline: .seconds(10))
            if let size = try JSON(parsing: answer.payload)["qsize"]?.intValue, size >= Int64(jobs) { return }
            try await Task.sleep(for: .milliseconds(100))
        }
        throw ValidationError("the jobs were not admitted in time")
    }
}
