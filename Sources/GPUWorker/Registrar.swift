import JobModel
import JobTransport
import Logging
import NATSClient
import ServiceSupport
import Synchronization
import WireJSON

/// Makes this process the owner of its card on the bus: `gpu.ctl.worker-<gpu>`, by compare-and-set.
///
/// Two workers of one host are kept apart by the card's lock before either gets here. A registration of another host
/// stands in the way as long as its worker is heard of.
struct Registrar: Sendable {
    let control: ControlStore
    let connection: NATSConnection
    let names: PoolNames
    let gpu: GPUID
    let incarnation: Incarnation
    let host: String
    let bootID: String
    /// What the record says of the card.
    let facts: JSONObject
    /// How long another host's worker must have been silent.
    let patience: Duration
    let logger: Logger

    /// Registers; goes on through lost connections and lost races.
    /// - Returns: where the registration stands, for ``release(at:)``.
    /// - Throws: when a worker of another host lives under this id; `CancellationError` when told to stop.
    func register() async throws -> UInt64 {
        while true {
            try Task.checkCancellation()
            do {
                let current = try await control.read(names.registration(gpu), as: WorkerRegistration.self)
                if let current { try await clear(current.record) }
                if let sequence = try await write(isReleased: false, expected: current?.sequence ?? 0) {
                    return sequence
                }
            } catch let error as JetStreamError {
                logger.warning("cannot register yet; trying again", metadata: ["error": "\(error)"])
                try await Task.sleep(for: .milliseconds(Int64.random(in: 500...1500)))
            }
        }
    }

    /// What stands in the place of this worker's registration.
    enum Standing: Sendable {
        case ours(sequence: UInt64)
        case replaced(WorkerRegistration)
        case unreadable
    }

    /// Makes sure that the registration stands, after a time in which the stream may have been put back to an older
    /// state: one that is gone is written again, since without it nobody would give this worker a job.
    /// - Throws: `CancellationError` when told to stop.
    func affirm() async throws -> Standing {
        while true {
            try Task.checkCancellation()
            do {
                if let current = try await control.read(names.registration(gpu), as: WorkerRegistration.self) {
                    let isOurs = current.record.incarnation == incarnation
                    return isOurs ? .ours(sequence: current.sequence) : .replaced(current.record)
                }
                logger.warning("the server no longer knows this worker's registration; registering again")
                if let sequence = try await write(isReleased: false, expected: 0) { return .ours(sequence: sequence) }
            } catch let error as JetStreamError {
                logger.warning("the registration cannot be looked up; trying again", metadata: ["error": "\(error)"])
                try await Task.sleep(for: .milliseconds(Int64.random(in: 500...1500)))
            } catch let error as MalformedMessage {
                logger.warning("what stands in the place of this card's registration is \(error)")
                return .unreadable
            }
        }
    }

    /// Calls back when somebody else has registered for the card, and when the stream may have been put back, until the
    /// returned watch is closed.
    ///
    /// In a cluster the messages come from any copy of the stream, which may be behind and show a registration that ours has
    /// replaced: the stream's leader is asked before one is believed.
    func watch(
        _ jetStream: JetStream,
        onDoubt: @escaping @Sendable () -> Void,
        onReplaced: @escaping @Sendable (WorkerRegistration) -> Void
    ) throws(NATSError) -> RegistrationWatch {
        let (strangers, stranger) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        var options = OrderedConsumer.Options()
        options.filterSubject = names.registration(gpu)
        let consumer = try OrderedConsumer(jetStream, stream: names.controlStream, options: options) {
            [incarnation, logger] event in
            if case .recreated = event { onDoubt() }
            guard case .message(let message, _) = event else { return }
            do throws(MalformedMessage) {
                let current = try WorkerRegistration(parsing: message.payload)
                if current.incarnation != incarnation { stranger.yield() }
            } catch {
                logger.warning("what stands in the place of this card's registration is \(error)")
            }
        }
        let confirming = Task {
            for await _ in strangers {
                if let other = await successor() { return onReplaced(other) }
            }
        }
        return RegistrationWatch(consumer: consumer, confirming: confirming)
    }

    /// Who is registered in our place by the word of the stream's leader; nil while we are, or when we are closed.
    private func successor() async -> WorkerRegistration? {
        while !Task.isCancelled {
            do {
                let current = try await control.read(names.registration(gpu), as: WorkerRegistration.self)
                guard let record = current?.record, record.incarnation != incarnation else { return nil }
                return record
            } catch let error as MalformedMessage {
                logger.warning("what stands in the place of this card's registration is \(error)")
                return nil
            } catch {
                logger.warning("this card's registration cannot be read; trying again", metadata: ["error": "\(error)"])
                await Pause.afterFailure()
            }
        }
        return nil
    }

    /// Gives the card back in order: nothing of ours runs any more.
    func release(at sequence: UInt64) async {
        do {
            _ = try await write(isReleased: true, expected: sequence)
        } catch {
            logger.info("the registration was not given back; it ends with its TTL", metadata: ["error": "\(error)"])
        }
    }

    /// Nil when another write came first.
    private func write(isReleased: Bool, expected: UInt64) async throws -> UInt64? {
        var ids = IdentifierSource()
        let registration = WorkerRegistration(
            gpu: gpu,
            incarnation: incarnation,
            host: host,
            bootID: bootID,
            processID: HostInfo.processID,
            isReleased: isReleased,
            facts: facts,
            op: OperationID(from: &ids)
        )
        let outcome = await control.write(
            registration,
            to: names.registration(gpu),
            expected: expected,
            until: .now + (isReleased ? .seconds(2) : .seconds(30))
        )
        switch outcome {
        case .stored(let sequence): return sequence
        case .conflict: return nil
        case .failed(let reason):
            throw JetStreamError.unknown(
                NATSError(.timeout, "register", subject: names.registration(gpu), cause: reason)
            )
        }
    }

    /// Waits until whoever is registered may be replaced.
    private func clear(_ current: WorkerRegistration) async throws {
        if current.isReleased || current.host == host { return }
        logger.notice(
            "card \(gpu) is registered to another host; waiting whether its worker lives",
            metadata: ["host": "\(current.host)", "pid": "\(current.processID)"]
        )
        guard try await isHeard(current.incarnation) else { return }
        throw FatalError(
            .taken,
            "card \(gpu) belongs to a living worker on \(current.host) (pid \(current.processID)); stop that one, or give "
                + "this machine a NODE_NAME of its own"
        )
    }

    /// Listens for heartbeats of a life until its TTL has passed.
    private func isHeard(_ life: Incarnation) async throws -> Bool {
        let (beats, continuation) = AsyncStream.makeStream(of: Void.self, bufferingPolicy: .bufferingNewest(1))
        let gpu = gpu
        let subscription = try connection.subscribe(names.heartbeat) { message in
            do {
                let beat = try Heartbeat(parsing: message.payload)
                if beat.gpu == gpu, beat.incarnation == life { continuation.yield() }
            } catch {
                // Not a heartbeat: it says nothing about that worker. The leader logs such messages.
            }
        }
        defer { subscription.cancel() }
        return try await withThrowingTaskGroup(of: Bool.self) { group in
            group.addTask {
                for await _ in beats { return true }
                return false
            }
            group.addTask {
                try await Task.sleep(for: patience)
                return false
            }
            defer { group.cancelAll() }
            return try await group.next() ?? false
        }
    }
}
