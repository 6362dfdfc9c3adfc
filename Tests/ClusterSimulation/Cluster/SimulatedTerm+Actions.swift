import JobModel
import SchedulerCore
import WireJSON

/// What the core decided, carried out as `LeaderTerm` does.
extension SimulatedTerm {
    func perform(_ action: SchedulerAction) {
        switch action {
        case .write(let record, let expected): write(record, expected: expected)
        case .publishRun(let gpu, let message): publishRun(gpu, message)
        case .deleteRun(let gpu, let attempt, let sequence): deleteRun(gpu, attempt, sequence)
        case .settle(let tokens): settle(tokens)
        case .publishError(let event, let messageID, let tokens):
            publishError(event, messageID: messageID, settling: tokens)
        case .tellLoss(let job, let attempt, let event, let messageID): tellLoss(job, attempt, event, messageID)
        case .publishResult(let event, let checkFirst): publishResult(event, checkFirst: checkFirst)
        case .storeResultsPlace(let sequence): storePlace(sequence)
        case .removeRecord(let sequence): removeRecord(sequence)
        case .requestCancel(let gpu, let job, let attempt): ask(gpu, .cancel(job, attempt)) { _ in }
        case .requestEvict(let gpu, let job, let attempt, let code, let reason):
            guard maestro.isTrusted else { return }
            ask(gpu, .evict(job, attempt, code, reason: reason)) { [self] answer in
                if answer?.ok != true { receive(.evictionFailed(gpu, job, reason: answer?.error ?? "no answer")) }
            }
        case .requestProbe(let gpu): probe(gpu)
        case .writeControl(let record, let expected): writeControl(record, expected: expected)
        case .readRecord(let job): readRecord(job)
        case .pull(let count): puller?.request(count)
        case .reply(let token, let answer): reply(token, answer)
        case .armTimer(let due): arm(due)
        case .announce(let event, _):
            if event == "leading" { connection.publish(.leading, on: names.maestroEvent("state")) }
            if event != "duplicate" { cluster.cover("event \(event)") }
        case .decided: break
        case .notice(let text): cluster.tell("\(maestro.name): \(text)")
        }
    }

    /// Whoever is not sure to lead answers nothing.
    private func reply(_ token: RequestToken, _ answer: JSON) {
        guard let asker = askers.removeValue(forKey: token), maestro.isTrusted else { return }
        cluster.ledger.noteEffect(of: maestro)
        switch asker {
        case .person(let address): connection.answer(address, answer)
        case .worker(let inbox):
            guard answer["ok"]?.boolValue == true, let counter = answer["counter"]?.unsignedValue else { return }
            connection.publish(.heartbeatAnswer(HeartbeatAnswer(counter: counter)), on: inbox)
        }
    }

    private func write(_ decided: JobRecord, expected: UInt64) {
        var record = decided
        if cluster.mutant == .givesFencedJobsAway {
            // Admitted when the TTL was longer.
            let admitted = record.limits.fence.map { _ in Fence(.seconds(15)) }
            record = record.with(fence: cluster.ledger[record.id].map(\.limits.fence) ?? admitted)
        }
        cluster.pass(.decided(record.state), maestro, record.id)
        guard !isOver else { return }
        if record.state == .scheduled, cluster.mutant == .dispatchesFirst, let gpu = record.gpu {
            publishRun(gpu, RunMessage(record: record, sequence: expected + 1))
        }
        let subject = names.state(record.id)
        let sent: UInt64? = cluster.mutant == .writesWithoutExpectation ? nil : expected
        connection.publish(.record(record), to: subject, expected: sent) { [self] outcome in
            if case .stored(let sequence, _) = outcome {
                cluster.pass(.stored(record.state), maestro, record.id)
                return receive(.writeEnded(record.id, record.op, .stored(sequence: sequence)))
            }
            settle(record, expected: expected, after: outcome)
        }
    }

    private func settle(_ record: JobRecord, expected: UInt64, after first: Outcome) {
        connection.compareAndSet(
            .record(record),
            to: names.state(record.id),
            stream: names.jobsStream,
            expected: expected,
            after: first,
            until: never,
            while: { [self] in !isOver }
        ) { [self] outcome in
            switch outcome {
            case .stored(let sequence): receive(.writeEnded(record.id, record.op, .stored(sequence: sequence)))
            case .conflict(let stored):
                receive(.writeEnded(record.id, record.op, .conflict(stored.flatMap(revision))))
            case .refused(let reason): receive(.writeEnded(record.id, record.op, .refused(reason)))
            case .unknown: break
            }
        }
    }

    private func revision(_ stored: Stored) -> RecordRevision? {
        stored.body.record.map { RecordRevision(record: seen($0), sequence: stored.sequence, storedAt: maestro.clock) }
    }

    private func readRecord(_ job: JobID) {
        connection.last(of: names.state(job), in: names.jobsStream) { [self] reply in
            guard !isOver else { return }
            guard case .answer(let stored) = reply else { return maestro.afterFailure { [self] in readAgain(job) } }
            receive(.recordRead(job, stored.flatMap(revision)))
        }
    }

    private func readAgain(_ job: JobID) { if !isOver { readRecord(job) } }

    private func publishRun(_ gpu: GPUID, _ message: RunMessage) {
        guard let attempt = message.attempt else { return }
        let job = message.record.id
        guard maestro.isTrusted else {
            return receive(.runRefused(job, attempt, reason: "the lease was not trusted at that time"))
        }
        cluster.ledger.noteEffect(of: maestro)
        connection.publish(.run(message), to: names.run(gpu)) { [self] outcome in
            if case .stored(let sequence, _) = outcome {
                return receive(.runPublished(job, gpu, attempt, sequence: sequence))
            }
            connection.publishUntilDefinite(
                .run(message),
                to: names.run(gpu),
                after: outcome,
                until: maestro.moment(of: maestro.trust),
                while: { [self] in !isOver }
            ) { [self] outcome in
                switch outcome {
                case .stored(let sequence, _): receive(.runPublished(job, gpu, attempt, sequence: sequence))
                case .refused(let reason): receive(.runRefused(job, attempt, reason: reason))
                case .wrongLastSequence: receive(.runRefused(job, attempt, reason: "wrong last sequence"))
                case .unknown: receive(.runRefused(job, attempt, reason: "not answered"))
                }
            }
        }
    }

    private func deleteRun(_ gpu: GPUID, _ attempt: AttemptID, _ sequence: UInt64?) {
        let look: (Reply<Stored?>) -> Void = { [self] reply in
            guard !isOver, case .answer(let stored?) = reply else { return }
            if case .run(let run) = stored.body, run.attempt == attempt {
                guard maestro.isTrusted else { return }
                cluster.ledger.noteEffect(of: maestro)
                return connection.delete(stored.sequence, from: names.runStream) { _ in }
            }
            guard sequence == nil else { return }
            deleteRun(gpu, attempt, from: stored.sequence + 1)
        }
        if let sequence { return connection.message(at: sequence, in: names.runStream, look) }
        connection.next(of: names.run(gpu), from: 1, in: names.runStream, look)
    }

    /// Looks for the message of the attempt, whose place is not known.
    private func deleteRun(_ gpu: GPUID, _ attempt: AttemptID, from: UInt64) {
        connection.next(of: names.run(gpu), from: from, in: names.runStream) { [self] reply in
            guard !isOver, case .answer(let stored?) = reply else { return }
            guard case .run(let run) = stored.body, run.attempt == attempt else {
                return deleteRun(gpu, attempt, from: stored.sequence + 1)
            }
            guard maestro.isTrusted else { return }
            connection.delete(stored.sequence, from: names.runStream) { _ in }
        }
    }

    private func settle(_ tokens: [UInt64]) {
        for token in tokens {
            guard let message = unsettled.removeValue(forKey: token) else { continue }
            cluster.pass(.settling, maestro, nil)
            guard !isOver else { return }
            puller?.acknowledge(message.sequence, .done)
        }
    }

    private func publishError(_ event: ErrorEvent, messageID: String, settling tokens: [UInt64]) {
        publish(event, messageID: messageID) { [self] in settle(tokens) }
    }

    private func tellLoss(_ job: JobID, _ attempt: AttemptID, _ event: ErrorEvent, _ messageID: String) {
        publish(event, messageID: messageID) { [self] in receive(.lossTold(job, attempt)) }
    }

    /// Goes on until the event is stored, or the term is over.
    private func publish(_ event: ErrorEvent, messageID: String, _ done: @escaping () -> Void) {
        connection.publishUntilDefinite(
            .event(event.encoded()),
            to: names.error,
            messageID: messageID,
            until: never,
            while: { [self] in !isOver }
        ) { [self] outcome in
            switch outcome {
            case .stored: done()
            case .unknown: break
            case .refused, .wrongLastSequence:
                maestro.afterFailure { [self] in if !isOver { publish(event, messageID: messageID, done) } }
            }
        }
    }

    private func publishResult(_ event: ResultEvent, checkFirst: Bool) {
        guard !isOver else { return }
        guard checkFirst else { return sendResult(event) }
        connection.last(of: names.result(event.job), in: names.eventsStream) { [self] reply in
            guard !isOver else { return }
            guard case .answer(let stored) = reply else {
                return maestro.afterFailure { [self] in publishResult(event, checkFirst: true) }
            }
            if stored != nil { return receive(.resultSettled(event.job)) }
            sendResult(event)
        }
    }

    private func sendResult(_ event: ResultEvent) {
        connection.publishUntilDefinite(
            .event(event.encodedWithoutOutput()),
            to: names.result(event.job),
            expected: cluster.mutant == .repeatsResults ? nil : 0,
            until: never,
            while: { [self] in !isOver }
        ) { [self] outcome in
            switch outcome {
            case .stored, .wrongLastSequence: receive(.resultSettled(event.job))
            case .unknown: break
            case .refused: maestro.afterFailure { [self] in publishResult(event, checkFirst: false) }
            }
        }
    }

    private func storePlace(_ sequence: UInt64) {
        guard maestro.isTrusted else { return }
        cluster.ledger.notePlace(sequence, by: maestro)
        connection.publish(.place(sequence), to: names.resultsPlace) { _ in }
    }

    private func removeRecord(_ sequence: UInt64) {
        let stream = names.jobsStream
        connection.message(at: sequence, in: stream) { [self] reply in
            guard !isOver else { return }
            switch reply {
            case .unknown: return receive(.recordRemoved(sequence: sequence, failure: "no answer"))
            case .answer(nil): return receive(.recordRemoved(sequence: sequence, failure: nil))
            case .answer(let stored?):
                guard stored.body.record?.state.isTerminal == true else {
                    return receive(.recordRemoved(sequence: sequence, failure: nil))
                }
            }
            guard maestro.isTrusted else {
                return receive(.recordRemoved(sequence: sequence, failure: "the lease was not trusted at that time"))
            }
            connection.delete(sequence, from: stream) { [self] reply in
                if case .answer = reply { return receive(.recordRemoved(sequence: sequence, failure: nil)) }
                receive(.recordRemoved(sequence: sequence, failure: "no answer"))
            }
        }
    }

    private func writeControl(_ record: CardControl, expected: UInt64) {
        connection.compareAndSet(
            .control(record),
            to: names.cardControl(record.gpu),
            stream: names.controlStream,
            expected: expected,
            until: never,
            while: { [self] in !isOver }
        ) { [self] outcome in
            switch outcome {
            case .stored(let sequence):
                receive(.controlWritten(record.gpu, record.op, .stored(sequence: sequence)))
            case .conflict(let stored):
                receive(.controlWritten(record.gpu, record.op, .conflict(stored.flatMap(controlRevision))))
            case .refused(let reason): receive(.controlWritten(record.gpu, record.op, .refused(reason)))
            case .unknown: receive(.controlWritten(record.gpu, record.op, .refused("no answer")))
            }
        }
    }

    private func controlRevision(_ stored: Stored) -> ControlRevision? {
        guard case .control(let record) = stored.body else { return nil }
        let storedAt = Timestamp(nanoseconds: stored.timestamp) + serverClockOffset
        return ControlRevision(record: record, sequence: stored.sequence, storedAt: storedAt)
    }

    private func ask(_ gpu: GPUID, _ request: WorkerRequest, _ done: @escaping (WorkerAnswer?) -> Void) {
        connection.ask(
            names.workerRequest(gpu, request.verb),
            deadline: .seconds(2),
            { .workerRequest(request, $0) },
            done
        )
    }

    private func probe(_ gpu: GPUID) {
        connection.ask(names.workerRequest(gpu, .probe), deadline: .seconds(90), { .workerRequest(.probe, $0) }) {
            [self] (answer: WorkerAnswer?) in
            let result: ProbeResult =
                switch answer {
                case nil: .notDone(reason: "no answer")
                case let answer? where answer.error != nil: .notDone(reason: answer.error ?? "")
                case let answer?: answer.ok ? .works(evidence: "fine") : .sick(evidence: "sick")
                }
            receive(.probeEnded(gpu, result))
        }
    }
}

extension JobRecord {
    /// The same with another fence, which nothing but a mutant would give it.
    func with(fence: Fence?) -> JobRecord {
        guard fence != limits.fence else { return self }
        let parts = String(decoding: encoded(), as: UTF8.self).split(separator: "\"fence\":", maxSplits: 1)
        var text = parts.count == 1 ? parts[0] : parts[0] + parts[1].drop { $0 != "," }.dropFirst()
        if let fence { text = "{\"fence\":\(fence.limit.inSeconds)," + text.dropFirst() }
        return (try? JobRecord(parsing: Array(text.utf8))) ?? self
    }
}

extension Heartbeat {
    func changed(by mutant: Mutant?) -> Heartbeat {
        var changed = self
        if mutant == .overbooks { changed.slots += 2 }
        if mutant == .meddlesWithTheRunning { changed.running = [] }
        return changed
    }
}
