import JobModel
import JobTransport
import NATSClient
import WireJSON

/// The records of the jobs: readable, bound to workers that live, and told when they have ended.
enum RecordExam {
    struct Facts: Sendable {
        var counts: [JobState: Int] = [:]
        var unreadable: [Unreadable] = []
        /// Jobs that are scheduled or running.
        var bound: [StoredRecord] = []
        /// Jobs that ended long enough ago, and lately enough, that their result must be there, and it is not.
        var untold: [StoredRecord] = []
        /// Jobs that have a result and have not ended.
        var toldTooEarly: [StoredRecord] = []
    }

    struct Unreadable: Sendable, Equatable {
        let subject: String
        let sequence: UInt64
        let reason: String
    }

    /// Of each kind of finding this many are told one by one.
    static let most = 20

    static func gather(_ client: PoolClient, _ pool: PoolFacts, now: Double) async throws -> Facts {
        var facts = Facts()
        guard pool.streams[client.names.jobsStream] != nil else { return facts }
        let firstEvent = pool.streams[client.names.eventsStream]?.firstTimestamp ?? .max
        var alive: Set<JobID> = []
        var ended: Set<JobID> = []
        try await Replay.records(client, what: "the records") { message in
            do {
                let stored = try StoredRecord(message)
                guard client.names.job(from: message.subject) == stored.record.id else {
                    throw MalformedMessage(
                        "record",
                        "it is of job \(stored.record.id), but stands at \(message.subject)"
                    )
                }
                facts.note(stored)
                if !stored.record.state.isTerminal {
                    alive.insert(stored.record.id)
                } else if pool.age(message.timestamp, now: now) > pool.patience, message.timestamp > firstEvent {
                    ended.insert(stored.record.id)
                }
            } catch let error as MalformedMessage {
                facts.unreadable.append(
                    Unreadable(subject: message.subject, sequence: message.sequence, reason: error.description)
                )
            }
        }
        try await compareResults(client, pool, &facts, alive: alive, ended: ended)
        return facts
    }

    private static func compareResults(
        _ client: PoolClient,
        _ pool: PoolFacts,
        _ facts: inout Facts,
        alive: Set<JobID>,
        ended: Set<JobID>
    ) async throws {
        guard pool.streams[client.names.eventsStream] != nil else { return }
        var untold = ended
        var early: Set<JobID> = []
        try await Replay.run(
            client,
            stream: client.names.eventsStream,
            subject: client.names.resultPrefix + ".*",
            headersOnly: true,
            what: "the results"
        ) { message in
            guard let job = client.names.job(from: message.subject) else { return }
            untold.remove(job)
            if alive.contains(job) { early.insert(job) }
        }
        // What was seen while others wrote counts only when it still stands.
        facts.untold = try await confirmed(untold, client) { record, result in record.state.isTerminal && result == nil
        }
        facts.toldTooEarly = try await confirmed(early, client) { record, result in
            !record.state.isTerminal && result != nil
        }
    }

    private static func confirmed(
        _ jobs: Set<JobID>,
        _ client: PoolClient,
        _ isSo: (JobRecord, StoredMessage?) -> Bool
    ) async throws -> [StoredRecord] {
        var found: [StoredRecord] = []
        for job in jobs.sorted().prefix(1000) {
            let subject = client.names.result(job)
            let result = try await client.jetStream.lastMessage(stream: client.names.eventsStream, subject: subject)
            if let stored = try await client.records.read(job), isSo(stored.record, result) { found.append(stored) }
        }
        return found
    }

    // MARK: judging

    static func judge(_ facts: Facts, _ pool: PoolFacts, now: Double) -> [Finding] {
        var findings = facts.unreadable.prefix(most).map(judge)
        findings += facts.bound.filter { pool.age($0.timestamp, now: now) > pool.patience }
            .compactMap { judgeOwner($0, pool, now: now) }.prefix(most)
        findings += facts.untold.prefix(most).map { stored in
            Finding(
                .records,
                .warning,
                "result_missing",
                "job \(stored.record.id) has ended and its result was not told",
                evidence: "it is \(stored.record.state.rawValue) since "
                    + "\(Printable.duration(pool.age(stored.timestamp, now: now))), and there is no result event",
                advice: "publish it from the record",
                repair: .publishResult(stored.record.id)
            )
        }
        findings += facts.toldTooEarly.prefix(most).map { stored in
            Finding(
                .records,
                .warning,
                "result_early",
                "job \(stored.record.id) has a result, and has not ended",
                evidence: "its record is \(stored.record.state.rawValue): its stream was put back to an older state",
                advice: "nothing to do: it runs again and ends; the result that is there tells of its first end"
            )
        }
        let counts = [facts.unreadable.count, facts.untold.count, facts.toldTooEarly.count]
        if let left = counts.map({ $0 - most }).max(), left > 0 {
            findings.append(
                Finding(
                    .records,
                    .note,
                    "more",
                    "there are more of these: up to \(left) of a kind are left out",
                    evidence: "",
                    advice: "run the doctor again after these are put right"
                )
            )
        }
        return findings
    }

    private static func judge(_ record: Unreadable) -> Finding {
        let job = record.subject.split(separator: ".").last.map(String.init) ?? record.subject
        return Finding(
            .records,
            .error,
            "record_unreadable",
            "the record of job \(job) cannot be read: nobody touches that job",
            evidence: "\(record.subject) at sequence \(record.sequence): \(record.reason)",
            advice:
                "if a newer version wrote it, upgrade. Else keep a copy (nats stream get), remove that sequence, and "
                + "submit the job again: maestroctl reconcile does so for what was submitted from here"
        )
    }

    /// Nil when the worker that the job is bound to lives and knows of it.
    private static func judgeOwner(_ stored: StoredRecord, _ pool: PoolFacts, now: Double) -> Finding? {
        let record = stored.record
        let state = record.state.rawValue
        let card = record.gpu?.text ?? "?"
        let age = Printable.duration(pool.age(stored.timestamp, now: now))
        let evidence: String
        if pool.isHeard(record.owner, now: now) {
            guard record.state == .running, let worker = record.owner.flatMap({ pool.heard[$0] }),
                worker.timestamp > stored.timestamp,
                !worker.heartbeat.running.contains(where: { $0.attempt == record.attempt })
            else { return nil }
            evidence = "\(state) for \(age); the worker's heartbeats do not name attempt \(record.attempt?.text ?? "?")"
        } else {
            evidence = "\(state) for \(age); no heartbeat of incarnation \(record.owner?.text ?? "?")"
        }
        return Finding(
            .records,
            pool.leader == nil ? .warning : .error,
            "record_stranded",
            "job \(record.id) is bound to card \(card), and no worker there has it",
            evidence: evidence,
            advice: pool.leader == nil
                ? "start a maestro: it takes the job back and runs it elsewhere"
                : "the leader should have taken it back by now: see its log, and restart it"
        )
    }

    static func summary(_ facts: Facts) -> String {
        let total = facts.counts.values.reduce(0, +)
        let waiting = [JobState.enqueued, .waitingGPU, .retry].reduce(0) { $0 + facts.counts[$1, default: 0] }
        return "\(Printable.count(total, "job")), \(waiting) waiting, \(facts.bound.count) on cards"
            + (facts.unreadable.isEmpty ? "" : ", \(facts.unreadable.count) unreadable")
    }
}

extension RecordExam.Facts {
    fileprivate mutating func note(_ stored: StoredRecord) {
        counts[stored.record.state, default: 0] += 1
        switch stored.record.state {
        case .scheduled, .running: bound.append(stored)
        case .enqueued, .waitingGPU, .retry, .done, .failed, .cancelled, .rejected: break
        }
    }
}
