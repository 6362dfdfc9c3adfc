import ArgumentParser
import Foundation
import JobModel
import JobTransport
import Logging
import NATSClient
import Synchronization
import WireJSON

/// Workers that exist only here: registered, heard of every few seconds, and done with each job at once.
///
/// To a maestro they are like real ones. To the server they are less, since one consumer serves them all.
final class SimulatedFleet: Sendable {
    private struct Card {
        let gpu: GPUID
        let life: Incarnation
        var counter: UInt64 = 0
        var running: [Heartbeat.RunningAttempt] = []
    }

    private struct State {
        var cards: [Card] = []
        var numbers: [GPUID: Int] = [:]
        var ids = IdentifierSource()
        var results = 0
        var stale = 0
        var wanted: (count: Int, continuation: CheckedContinuation<Void, Never>)?
    }

    private static let beatEvery = Duration.seconds(5)
    private static let window = 8192

    private let names = PoolNames()
    private let options: PoolOptions
    private let connection: NATSConnection
    private let jetStream: JetStream
    private let consumer: DurableConsumer
    private let state = Mutex(State())
    private let tasks = Mutex<[Task<Void, Never>]>([])

    init(_ options: PoolOptions) async throws {
        self.options = options
        connection = try await options.connect("maestro-bench-fleet")
        jetStream = JetStream(connection)
        consumer = DurableConsumer(
            jetStream,
            DurableConsumer.Description(
                stream: names.runStream,
                name: "GPU_RUN_BENCH",
                subject: names.runPrefix + ".*",
                maxAckPending: Self.window * 2,
                capacity: Self.window,
                content: "runs"
            ),
            logger: Logger(label: "bench")
        )
    }

    var staleClaims: Int { state.withLock { $0.stale } }

    /// Registers all cards, has them heard of, and begins to take jobs.
    func start() async throws {
        let lives = state.withLock { state in
            for number in 0..<options.cardCount {
                guard let gpu = GPUID(String(number)) else { continue }
                state.cards.append(Card(gpu: gpu, life: Incarnation(from: &state.ids)))
                state.numbers[gpu] = number
            }
            return state.cards.map { ($0.gpu, $0.life) }
        }
        for chunk in stride(from: 0, to: lives.count, by: 1000) {
            try await withThrowingTaskGroup(of: Void.self) { group in
                for (gpu, life) in lives[chunk..<min(chunk + 1000, lives.count)] {
                    group.addTask { try await self.register(gpu, life) }
                }
                try await group.waitForAll()
            }
        }
        for number in lives.indices { tell(number) }
        let serving = Task { await consumer.serve { [weak self] in self?.take($0) } }
        let beating = Task { await beat() }
        tasks.withLock { $0 = [serving, beating] }
        consumer.request(Self.window)
    }

    func stop() async {
        consumer.close()
        let tasks = tasks.withLock { $0 }
        for task in tasks { task.cancel() }
        for task in tasks { await task.value }
    }

    private func register(_ gpu: GPUID, _ life: Incarnation) async throws {
        let registration = WorkerRegistration(
            gpu: gpu,
            incarnation: life,
            host: "bench",
            bootID: "bench",
            processID: Int(getpid()),
            isReleased: false,
            op: newOperation()
        )
        let store = ControlStore(jetStream, names: names)
        var expected: UInt64 = 0
        for _ in 0..<3 {
            let subject = names.registration(gpu)
            switch await store.write(registration, to: subject, expected: expected, until: .now + .seconds(30)) {
            case .stored: return
            case .conflict(let other): expected = other?.sequence ?? 0
            case .failed(let reason): throw ValidationError("card \(gpu) was not registered: \(reason)")
            }
        }
        throw ValidationError("card \(gpu) was not registered")
    }

    private func newOperation() -> OperationID { state.withLock { OperationID(from: &$0.ids) } }

    // MARK: signs of life

    /// Heartbeats and readings, spread over the time between two of a card.
    private func beat() async {
        let clock = ContinuousClock()
        let steps = 100
        var next = clock.now
        var step = 0
        while !Task.isCancelled {
            for number in stride(from: step, to: options.cardCount, by: steps) { tell(number) }
            step = (step + 1) % steps
            next += Self.beatEvery / steps
            do {
                try await clock.sleep(until: next)
            } catch {
                return
            }
        }
    }

    private func tell(_ number: Int) {
        let (heartbeat, life) = state.withLock { state in
            state.cards[number].counter += 1
            let card = state.cards[number]
            let heartbeat = Heartbeat(
                gpu: card.gpu,
                incarnation: card.life,
                counter: card.counter,
                slots: options.slots,
                running: card.running,
                isDraining: false,
                time: Date.now.timeIntervalSince1970
            )
            return (heartbeat, card.life)
        }
        let metrics: JSON = [
            "gpu_id": heartbeat.gpu.json, "incarnation": .string(life.text), "pci": "0000:03:00.0",
            "card": "AMD Radeon RX 580 Series", "driver": "amdgpu", "ts": .double(heartbeat.time),
            "gpu_busy_percent": .double(Double(heartbeat.counter % 90)), "temp_c": .double(55 + Double(number % 10)),
            "power_w": 91.5, "power_cap_w": 120, "fan_rpm": 1450, "fan_percent": 38, "vram_used_bytes": 1_073_741_824,
            "vram_total_bytes": 8_589_934_592, "temp_limit_c": 78,
        ]
        do {
            try connection.publish(heartbeat.encoded(), to: names.heartbeat)
            try connection.publish(metrics.encoded(), to: names.metrics)
        } catch {
            FileHandle.standardError.write(Data("maestro-bench: a heartbeat was not sent: \(error)\n".utf8))
        }
    }

    // MARK: jobs

    private func take(_ message: JetStreamMessage) {
        consumer.request(1)
        guard let run = try? RunMessage(parsing: message.payload, enqueueSubject: names.enqueueSubject),
            let gpu = run.record.gpu, let attempt = run.record.attempt
        else { return acknowledge(message) }
        guard let record = advanced(run.record, .claim) else { return acknowledge(message) }
        note(gpu) { $0.append(Heartbeat.RunningAttempt(job: record.id, attempt: attempt)) }
        write(record, run.sequence) { [self] sequence in
            guard let sequence else {
                note(gpu) { $0.removeAll { $0.attempt == attempt } }
                state.withLock { $0.stale += 1 }
                return acknowledge(message)
            }
            commit(record, sequence, message)
        }
    }

    private func commit(_ claimed: JobRecord, _ sequence: UInt64, _ message: JetStreamMessage) {
        let outcome = AttemptOutcome(returnCode: 0, duration: .milliseconds(1))
        guard let record = advanced(claimed, .finish(outcome)), let gpu = record.gpu, let attempt = record.attempt
        else { return }
        let report = AttemptReport(
            job: record.id,
            gpu: gpu,
            attempt: attempt,
            tries: record.tries,
            ran: true,
            outcome: outcome,
            workingDirectory: "/srv/gpucache/gpu\(gpu)/tasks/\(record.id)",
            type: "cmd",
            time: record.times.updated
        )
        write(record, sequence) { [self] sequence in
            note(gpu) { $0.removeAll { $0.attempt == attempt } }
            guard sequence != nil else { return acknowledge(message) }
            jetStream.publish(report.doneEvent(), to: names.done, messageID: "done:\(attempt)") { _ in }
            jetStream.publish(
                report.resultEvent(state: .done),
                to: names.result(record.id),
                expectedLastSubjectSequence: 0
            ) { [self] _ in
                acknowledge(message)
                countResult()
            }
        }
    }

    private func advanced(_ record: JobRecord, _ transition: JobTransition) -> JobRecord? {
        let operation = newOperation()
        let now = Timestamp(nanoseconds: Int64(Date.now.timeIntervalSince1970 * 1e9))
        var record = record
        do throws(IllegalTransition) {
            try record.apply(transition, op: operation, at: now)
            return record
        } catch {
            return nil
        }
    }

    /// - Parameter done: gets the sequence; nil when the write lost.
    private func write(_ record: JobRecord, _ expected: UInt64, done: @escaping @Sendable (UInt64?) -> Void) {
        RecordStore(jetStream, names: names).send(EncodedRecord(record), expected: expected) { outcome in
            if case .stored(let ack) = outcome { done(ack.sequence) } else { done(nil) }
        }
    }

    private func note(_ gpu: GPUID, _ change: (inout [Heartbeat.RunningAttempt]) -> Void) {
        state.withLock { state in
            guard let number = state.numbers[gpu] else { return }
            change(&state.cards[number].running)
        }
    }

    private func acknowledge(_ message: JetStreamMessage) {
        do {
            try message.ack()
        } catch {
            FileHandle.standardError.write(Data("maestro-bench: a run was not acknowledged: \(error)\n".utf8))
        }
    }

    private func countResult() {
        let waiting = state.withLock { state -> CheckedContinuation<Void, Never>? in
            state.results += 1
            guard let wanted = state.wanted, state.results >= wanted.count else { return nil }
            state.wanted = nil
            return wanted.continuation
        }
        waiting?.resume()
    }

    /// Waits until that many results were stored.
    func waitForResults(_ count: Int, deadline: Duration) async throws {
        let end = Task {
            try await Task.sleep(for: deadline)
            let results = state.withLock { $0.results }
            FileHandle.standardError.write(Data("maestro-bench: only \(results) of \(count) results in time\n".utf8))
            exit(1)
        }
        defer { end.cancel() }
        await withCheckedContinuation { continuation in
            let isThere = state.withLock { state in
                if state.results >= count { return true }
                state.wanted = (count, continuation)
                return false
            }
            if isThere { continuation.resume() }
        }
    }
}
