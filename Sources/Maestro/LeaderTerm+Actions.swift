import JobModel
import JobTransport
import Logging
import NATSClient
import SchedulerCore
import WireJSON

/// What the core decided, carried out.
extension LeaderTerm {
    func perform(
        _ action: SchedulerAction,
        at now: Timestamp,
        _ timer: DeadlineTimer,
        _ group: inout DiscardingTaskGroup
    ) {
        switch action {
        case .write(let record, let expected): send(record, expected: expected)
        case .publishRun(let gpu, let message): sendRun(gpu, message)
        case .deleteRun(let gpu, let attempt, let sequence):
            group.addTask { await deleteRun(gpu, attempt, sequence: sequence) }
        case .settle(let tokens): submissions.settle(tokens)
        case .publishError(let event, let messageID, let tokens):
            group.addTask { await publishError(event, messageID: messageID, settling: tokens) }
        case .tellLoss(let job, let attempt, let event, let messageID):
            group.addTask { await tellLoss(job, attempt, event, messageID: messageID) }
        case .publishResult(let event, let checkFirst):
            group.addTask { await publishResult(event, checkFirst: checkFirst) }
        case .storeResultsPlace(let sequence): group.addTask { await storeResultsPlace(sequence) }
        case .removeRecord(let sequence): group.addTask { await removeRecord(at: sequence) }
        case .requestCancel(let gpu, let job, let attempt):
            group.addTask { await requestCancel(gpu, job, attempt) }
        case .requestEvict(let gpu, let job, let attempt, let code, let reason):
            group.addTask { await requestEvict(gpu, job, attempt, code, reason: reason) }
        case .requestProbe(let gpu): requestProbe(gpu)
        case .writeControl(let record, let expected):
            group.addTask { await writeControl(record, expected: expected) }
        case .readRecord(let job): group.addTask { await readRecord(job) }
        case .pull(let count): submissions.pull(count)
        case .reply(let token, let answer): reply(token, answer)
        case .armTimer(let due): timer.arm(after: due.map { $0 - now })
        case .decided(let decision): context.decisions?.write(decision)
        case .announce(let event, let details): announce(event, details, at: now)
        case .notice(let text): context.logger.warning("\(text)")
        }
    }

    /// How long a write goes on without an answer before the term gives it up: it ends with the term anyway.
    var patience: ContinuousClock.Instant { .now + .seconds(24 * 3600) }

    /// When the lease's trust ends, on the clock that the transport counts by.
    private var trustDeadline: ContinuousClock.Instant { .now + (trust.until - context.clock.now()) }

    /// An answer is an effect like others: who answers a heartbeat promises what the next leader has to keep.
    private func reply(_ token: RequestToken, _ answer: JSON) {
        guard isTrusted else { return requests.drop(token) }
        requests.reply(token, answer)
    }

    var isTrusted: Bool { context.clock.now() < trust.until }

    // MARK: what its first answer did not settle

    /// A message that was sent and not stored, as far as its first answer tells.
    enum Unsettled: Sendable {
        case write(JobRecord, expected: UInt64, PublishOutcome)
        case run(GPUID, RunMessage, PublishOutcome)
    }

    /// Brings each of them to its end, until the term is over.
    func settleUnsettled() async {
        await withDiscardingTaskGroup { group in
            while true {
                let batch = await unsettled.receive()
                if batch.isEmpty { return group.cancelAll() }
                for one in batch { group.addTask { await settle(one) } }
            }
        }
    }

    private func settle(_ one: Unsettled) async {
        switch one {
        case .write(let record, let expected, let first): await settle(record, expected: expected, after: first)
        case .run(let gpu, let message, let first): await settleRun(gpu, message, after: first)
        }
    }

    // MARK: records

    /// Writes are sent in the order of the decisions: jobs are to reach a card in the order of their places.
    private func send(_ record: JobRecord, expected: UInt64) {
        let write = EncodedRecord(record)
        echoes.expect(write, after: expected)
        context.records.send(write, expected: expected) { [mailbox, unsettled] outcome in
            guard case .stored(let ack) = outcome else {
                return unsettled.sendOutcome(.write(record, expected: expected, outcome))
            }
            mailbox.sendOutcome(.writeEnded(record.id, record.op, .stored(sequence: ack.sequence)))
        }
    }

    private func settle(_ record: JobRecord, expected: UInt64, after first: PublishOutcome) async {
        let outcome = await context.records.write(record, expected: expected, after: first, until: patience)
        if case .stored = outcome {} else { echoes.forget(record) }
        switch outcome {
        case .stored(let sequence):
            mailbox.sendOutcome(.writeEnded(record.id, record.op, .stored(sequence: sequence)))
        case .conflict(let current):
            mailbox.sendOutcome(.writeEnded(record.id, record.op, .conflict(current.map(revision))))
        case .refused(let reason):
            mailbox.sendOutcome(.writeEnded(record.id, record.op, .refused(reason)))
        case .unknown(let error):
            // The term is over: the next leader finds out from the records.
            context.logger.debug("a write was given up", metadata: ["job": "\(record.id)", "error": "\(error)"])
        }
    }

    private func revision(_ stored: StoredRecord) -> RecordRevision {
        RecordRevision(record: stored.record, sequence: stored.sequence, storedAt: context.clock.now())
    }

    private func readRecord(_ job: JobID) async {
        while !Task.isCancelled {
            do {
                let stored = try await context.records.read(job)
                return mailbox.sendOutcome(.recordRead(job, stored.map(revision)))
            } catch {
                context.logger.warning("a record cannot be read", metadata: ["job": "\(job)", "error": "\(error)"])
                await Pause.afterFailure()
            }
        }
    }

    /// Deletes the record of an ended job, after making sure that it is one: a stream put back to an older state gives
    /// sequences out again.
    private func removeRecord(at sequence: UInt64) async {
        let failure: String?
        do {
            failure = try await removalObstacle(at: sequence)
        } catch {
            failure = "\(error)"
        }
        mailbox.sendOutcome(.recordRemoved(sequence: sequence, failure: failure))
    }

    /// - Returns: why the record was not removed; nil when it is gone, or not ours to remove.
    private func removalObstacle(at sequence: UInt64) async throws -> String? {
        let stream = context.names.jobsStream
        guard let message = try await context.jetStream.message(stream: stream, sequence: sequence) else { return nil }
        guard try JobRecord(parsing: message.payload).state.isTerminal else { return nil }
        guard isTrusted else { return "the lease was not trusted at that time" }
        _ = try await context.jetStream.deleteMessage(stream: stream, sequence: sequence)
        return nil
    }

    /// Tells the core every few seconds how full the records' stream is.
    func watchStore() async {
        while !Task.isCancelled {
            do {
                let info = try await context.jetStream.streamInfo(context.names.jobsStream)
                if let limit = info.config["max_bytes"]?.intValue, limit > 0 {
                    mailbox.sendOutcome(.storeFilled(Double(info.bytes) / Double(limit)))
                }
            } catch {
                context.logger.debug("the records' stream did not tell how full it is", metadata: ["error": "\(error)"])
            }
            do {
                try await Task.sleep(for: .seconds(5))
            } catch {
                return
            }
        }
    }

    // MARK: runs

    private func sendRun(_ gpu: GPUID, _ message: RunMessage) {
        guard let attempt = message.attempt else { return }
        let job = message.record.id
        guard isTrusted else {
            return mailbox.sendOutcome(.runRefused(job, attempt, reason: "the lease was not trusted at that time"))
        }
        context.jetStream.publish(message.encoded(), to: context.names.run(gpu)) { [mailbox, unsettled] outcome in
            guard case .stored(let ack) = outcome else { return unsettled.sendOutcome(.run(gpu, message, outcome)) }
            mailbox.sendOutcome(.runPublished(job, gpu, attempt, sequence: ack.sequence))
        }
    }

    private func settleRun(_ gpu: GPUID, _ message: RunMessage, after first: PublishOutcome) async {
        guard let attempt = message.attempt else { return }
        let job = message.record.id
        let outcome = await context.jetStream.publishUntilDefinite(
            message.encoded(),
            to: context.names.run(gpu),
            after: first,
            until: trustDeadline
        )
        switch outcome {
        case .stored(let ack):
            mailbox.sendOutcome(.runPublished(job, gpu, attempt, sequence: ack.sequence))
        case .refused(let error):
            mailbox.sendOutcome(.runRefused(job, attempt, reason: "its run message was refused: \(error)"))
        case .unknown(let error):
            mailbox.sendOutcome(.runRefused(job, attempt, reason: "its run message was not answered: \(error)"))
        }
    }

    /// Deletes the run message of an attempt that was taken back, after making sure that it is this one: a stream put
    /// back to an older state gives sequences out again.
    private func deleteRun(_ gpu: GPUID, _ attempt: AttemptID, sequence: UInt64?) async {
        let stream = context.names.runStream
        do {
            var next = try await runMessage(gpu, from: sequence ?? 1, exactly: sequence != nil)
            while let message = next, !Task.isCancelled {
                if Self.attempt(of: message, enqueue: context.names.enqueueSubject) == attempt {
                    guard isTrusted else { return }
                    _ = try await context.jetStream.deleteMessage(stream: stream, sequence: message.sequence)
                    return
                }
                guard sequence == nil else { return }
                next = try await runMessage(gpu, from: message.sequence + 1, exactly: false)
            }
        } catch {
            // The message stays: its worker will find that the record has moved on, and drop it.
            context.logger.info(
                "the run message of an attempt that was taken back could not be deleted",
                metadata: ["attempt": "\(attempt)", "error": "\(error)"]
            )
        }
    }

    private func runMessage(_ gpu: GPUID, from sequence: UInt64, exactly: Bool) async throws -> StoredMessage? {
        let stream = context.names.runStream
        if exactly { return try await context.jetStream.message(stream: stream, sequence: sequence) }
        return try await context.jetStream.nextMessage(stream: stream, subject: context.names.run(gpu), from: sequence)
    }

    private static func attempt(of message: StoredMessage, enqueue: String) -> AttemptID? {
        do {
            return try RunMessage(parsing: message.payload, enqueueSubject: enqueue).attempt
        } catch {
            // Not a run message: not the one that is looked for.
            return nil
        }
    }

    // MARK: events

    private func publishError(_ event: ErrorEvent, messageID: String, settling tokens: [UInt64]) async {
        if await storeError(event, messageID: messageID) { submissions.settle(tokens) }
    }

    private func tellLoss(_ job: JobID, _ attempt: AttemptID, _ event: ErrorEvent, messageID: String) async {
        if await storeError(event, messageID: messageID) { mailbox.sendOutcome(.lossTold(job, attempt)) }
    }

    /// - Returns: false when the term ended before the event was stored.
    private func storeError(_ event: ErrorEvent, messageID: String) async -> Bool {
        let payload = event.encoded()
        while !Task.isCancelled {
            let outcome = await context.jetStream.publishUntilDefinite(
                payload,
                to: context.names.error,
                messageID: messageID,
                until: patience
            )
            switch outcome {
            case .stored: return true
            case .unknown: return false
            case .refused(let error):
                context.logger.warning("an error event was refused; trying again", metadata: ["error": "\(error)"])
                await Pause.afterFailure()
            }
        }
        return false
    }

    private func publishResult(_ event: ResultEvent, checkFirst: Bool) async {
        let subject = context.names.result(event.job)
        while !Task.isCancelled {
            do {
                if checkFirst,
                    try await context.jetStream.lastMessage(stream: context.names.eventsStream, subject: subject) != nil
                {
                    return mailbox.sendOutcome(.resultSettled(event.job))
                }
            } catch {
                context.logger.warning(
                    "a result cannot be looked up",
                    metadata: ["job": "\(event.job)", "error": "\(error)"]
                )
                await Pause.afterFailure()
                continue
            }
            let outcome = await context.jetStream.publishUntilDefinite(
                event.encodedWithoutOutput(),
                to: subject,
                expectedLastSubjectSequence: 0,
                until: patience
            )
            switch outcome {
            case .stored: return mailbox.sendOutcome(.resultSettled(event.job))
            case .refused(let error) where error.isWrongLastSequence:
                return mailbox.sendOutcome(.resultSettled(event.job))
            case .unknown: return
            case .refused(let error):
                context.logger.warning(
                    "a result was refused; trying again",
                    metadata: ["job": "\(event.job)", "error": "\(error)"]
                )
                await Pause.afterFailure()
            }
        }
    }

    /// Only saves work at the next start: when it fails, more results are looked up then.
    private func storeResultsPlace(_ sequence: UInt64) async {
        guard isTrusted else { return }
        let outcome = await context.jetStream.publish(
            ResultsPlace(through: sequence).encoded(),
            to: context.names.resultsPlace
        )
        guard case .stored = outcome else {
            return context.logger.info("the place of the results was not stored", metadata: ["outcome": "\(outcome)"])
        }
    }

    private func announce(_ event: String, _ details: JSONObject, at now: Timestamp) {
        var body = JSONObject([("event", .string(event))])
        for field in details { body[field.key] = field.value }
        body["incarnation"] = .string(context.incarnation.text)
        body["ts"] = .double(now.seconds)
        context.tell(JSON.object(body).encoded(), on: context.names.maestroEvent("state"))
        if event != "duplicate" { context.logger.info("\(event)", metadata: details.logMetadata) }
    }
}

extension JSONObject {
    /// The fields for a line of the log.
    fileprivate var logMetadata: Logger.Metadata {
        var metadata: Logger.Metadata = [:]
        for field in self {
            metadata[field.key] = "\(field.value.stringValue ?? String(decoding: field.value.encoded(), as: UTF8.self))"
        }
        return metadata
    }
}
