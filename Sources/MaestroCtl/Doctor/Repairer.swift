import JobModel
import JobTransport
import NATSClient
import ServiceSupport
import WireJSON

/// Puts right what the doctor has found, one thing at a time, and tells each on `maestro.repair`.
///
/// Records are written by compare-and-set alone, and never when they have ended. Messages are removed by their sequence,
/// after a look that they are still the ones that were found.
struct Repairer: Sendable {
    enum Outcome: Sendable, Equatable {
        case done
        /// It has changed meanwhile: there is nothing to put right any more.
        case notNeeded(String)
        case failed(String)
    }

    let client: PoolClient
    private static let patience = Duration.seconds(30)

    func carryOut(_ repair: Repair) async -> Outcome {
        let outcome: Outcome
        do {
            outcome = try await perform(repair)
        } catch {
            outcome = .failed(PoolClient.failure(error, repair.description).message)
        }
        return await tell(repair, outcome)
    }

    private func perform(_ repair: Repair) async throws -> Outcome {
        switch repair {
        case .removeRun(let sequence, let attempt): try await removeRun(sequence, attempt)
        case .removeForeignRun(let sequence, let payload): try await removeForeignRun(sequence, payload)
        case .takeBack(let job, let attempt, let sequence): try await takeBack(job, attempt, sequence)
        case .restoreRecord(let run): try await restore(run)
        case .publishResult(let job): try await publishResult(job)
        case .remakeConsumer(let stream, let name):
            try await client.jetStream.deleteConsumer(stream: stream, name) ? .done : .notNeeded("it is gone")
        case .removeControl(let subject, let sequence): try await removeControl(subject, sequence)
        }
    }

    // MARK: run messages

    private func removeRun(_ sequence: UInt64, _ attempt: AttemptID) async throws -> Outcome {
        let stream = client.names.runStream
        guard let message = try await client.jetStream.message(stream: stream, sequence: sequence),
            let run = run(in: message.payload), run.attempt == attempt
        else { return .notNeeded("another message stands there, or none") }
        if let record = try await client.records.read(run.record.id)?.record, record.attempt == attempt,
            [.scheduled, .running].contains(record.state)
        {
            return .notNeeded("its attempt is \(record.state.rawValue) now")
        }
        return try await remove(sequence, from: stream)
    }

    private func removeForeignRun(_ sequence: UInt64, _ payload: [UInt8]) async throws -> Outcome {
        let stream = client.names.runStream
        guard try await client.jetStream.message(stream: stream, sequence: sequence)?.payload == payload else {
            return .notNeeded("another message stands there, or none")
        }
        return try await remove(sequence, from: stream)
    }

    private func run(in payload: [UInt8]) -> RunMessage? {
        do {
            return try RunMessage(parsing: payload, enqueueSubject: client.names.enqueueSubject)
        } catch {
            // Not a run message: not the one that was found.
            return nil
        }
    }

    private func remove(_ sequence: UInt64, from stream: String) async throws -> Outcome {
        try await client.jetStream.deleteMessage(stream: stream, sequence: sequence)
            ? .done : .notNeeded("somebody else removed it")
    }

    private func removeControl(_ subject: String, _ sequence: UInt64) async throws -> Outcome {
        let stream = client.names.controlStream
        guard try await client.jetStream.lastMessage(stream: stream, subject: subject)?.sequence == sequence else {
            return .notNeeded("it was written again")
        }
        return try await remove(sequence, from: stream)
    }

    // MARK: records

    private func takeBack(_ job: JobID, _ attempt: AttemptID, _ sequence: UInt64) async throws -> Outcome {
        guard let stored = try await client.records.read(job), stored.sequence == sequence,
            stored.record.attempt == attempt
        else { return .notNeeded("its record has moved on") }
        var record = stored.record
        var ids = IdentifierSource()
        try record.apply(
            .takeBack(reason: "its run message was lost (maestroctl doctor --repair)"),
            op: OperationID(from: &ids),
            at: MonotonicClock().now()
        )
        return await write(record, expected: sequence)
    }

    /// The record as it was before it was scheduled: the attempt was never claimed, or its claim is lost too.
    private func restore(_ run: RunMessage) async throws -> Outcome {
        let result = try await client.jetStream.lastMessage(
            stream: client.names.eventsStream,
            subject: client.names.result(run.record.id)
        )
        guard result == nil else { return .notNeeded("its result is there: it has ended") }
        var record = run.record
        var ids = IdentifierSource()
        try record.apply(
            .takeBack(reason: "its record was lost and made anew from its run message (maestroctl doctor --repair)"),
            op: OperationID(from: &ids),
            at: MonotonicClock().now()
        )
        return await write(record, expected: 0)
    }

    private func write(_ record: JobRecord, expected: UInt64) async -> Outcome {
        switch await client.records.write(record, expected: expected, until: .now + Self.patience) {
        case .stored: .done
        case .conflict: .notNeeded("somebody else wrote its record")
        case .refused(let reason): .failed(reason)
        case .unknown(let error): .failed("whether it was stored is unknown: \(error)")
        }
    }

    private func publishResult(_ job: JobID) async throws -> Outcome {
        guard let record = try await client.records.read(job)?.record, record.state.isTerminal else {
            return .notNeeded("it has no ended record")
        }
        let event = ResultEvent(
            job: job,
            state: record.state,
            tries: record.tries,
            outcome: record.outcome,
            time: record.times.ended ?? record.times.updated
        )
        // Stored only where there is none: whoever else publishes it meanwhile wins, and there is one.
        let outcome = await client.jetStream.publishUntilDefinite(
            event.encodedWithoutOutput(),
            to: client.names.result(job),
            expectedLastSubjectSequence: 0,
            until: .now + Self.patience
        )
        switch outcome {
        case .stored: return .done
        case .refused(let error) where error.isWrongLastSequence: return .notNeeded("somebody else published it")
        case .refused(let error): return .failed("\(error)")
        case .unknown(let error): return .failed("whether it was stored is unknown: \(error)")
        }
    }

    // MARK: telling

    /// Tells on the bus, where it is kept with the other events. That it could not be told does not undo it.
    private func tell(_ repair: Repair, _ outcome: Outcome) async -> Outcome {
        guard outcome == .done else { return outcome }
        var body = JSONObject([
            ("repair", .string(repair.code)), ("message", .string(repair.description)),
            ("host", .string(HostInfo.name)), ("pid", .int(HostInfo.processID)), ("ts", .double(WallClock.now())),
        ])
        if let job = repair.job { body["task_id"] = .string(job.text) }
        let told = await client.jetStream.publish(
            JSON.object(body).encoded(),
            to: client.names.maestroEvent("repair")
        )
        if case .stored = told { return .done }
        Console.say("maestroctl: the repair was done, and could not be told on the bus: \(told)")
        return .done
    }
}
