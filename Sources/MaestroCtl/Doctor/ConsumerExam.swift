import JobModel
import JobTransport
import NATSClient
import WireJSON

/// The durable consumers of submissions and of runs: there, as they must be, and moving.
enum ConsumerExam {
    struct Facts: Sendable {
        var consumers: [ConsumerInfo] = []
        /// The same consumers a moment later, by stream and name.
        var later: [String: ConsumerInfo] = [:]
        /// The last sequence of each stream, asked for after its consumers: what they were given meanwhile is before it.
        var ends: [String: UInt64] = [:]
        /// How long the first submission has waited that was delivered and not settled, in seconds.
        var oldestSubmission: Double?
    }

    static func gather(_ client: PoolClient, _ pool: PoolFacts, now: Double) async throws -> Facts {
        let names = client.names
        var facts = Facts()
        for stream in [names.workQueueStream, names.runStream] where pool.streams[stream] != nil {
            facts.consumers += try await client.jetStream.consumers(stream: stream)
            facts.ends[stream] = try await client.jetStream.streamInfo(stream).lastSequence
        }
        let suspects = facts.consumers.filter(mayBeStuck)
        if !suspects.isEmpty {
            // Whoever pulls may just have got a batch: a second look tells.
            try await Task.sleep(for: .seconds(1))
            for suspect in suspects {
                let again = try await client.jetStream.consumers(stream: suspect.stream).first {
                    $0.name == suspect.name
                }
                facts.later[key(suspect)] = again
            }
        }
        if let queue = pool.streams[names.workQueueStream], queue.messages > 0,
            let first = try await client.jetStream.message(stream: queue.name, sequence: queue.firstSequence),
            let reader = facts.consumers.first(where: { $0.name == names.enqueueConsumer }),
            reader.deliveredStreamSequence >= first.sequence
        {
            facts.oldestSubmission = pool.age(first.timestamp, now: now)
        }
        return facts
    }

    private static func key(_ consumer: ConsumerInfo) -> String { "\(consumer.stream) \(consumer.name)" }

    private static func mayBeStuck(_ consumer: ConsumerInfo) -> Bool { consumer.pending > 0 && consumer.waiting == 0 }

    // MARK: judging

    static func judge(_ facts: Facts, _ pool: PoolFacts, _ names: PoolNames, now: Double) -> [Finding] {
        var findings: [Finding] = []
        let owned = owners(pool, names, now: now)
        for consumer in facts.consumers {
            guard let subject = owned[consumer.name] else {
                if let finding = judgeForeign(consumer, names) { findings.append(finding) }
                continue
            }
            findings += judgeConfiguration(consumer, subject)
            findings += judgePlace(consumer, end: facts.ends[consumer.stream])
        }
        for (name, subject) in owned.sorted(by: { $0.key < $1.key })
        where !facts.consumers.contains(where: { $0.name == name }) {
            findings += judgeMissing(name, subject, pool, names)
        }
        findings += judgeAdmission(facts, pool, names)
        findings += judgeRuns(facts, pool, names, now: now)
        return findings
    }

    /// The consumers that somebody who lives has to keep, with their subjects.
    private static func owners(_ pool: PoolFacts, _ names: PoolNames, now: Double) -> [String: String] {
        var owned = [names.enqueueConsumer: names.enqueueSubject]
        for (gpu, worker) in pool.registrations where !worker.isReleased {
            owned[names.runConsumer(gpu)] = names.run(gpu)
        }
        return owned
    }

    private static func judgeConfiguration(_ consumer: ConsumerInfo, _ subject: String) -> [Finding] {
        let config = consumer.config
        var wrong: [String] = []
        if config["filter_subject"]?.stringValue != subject {
            wrong.append("filter_subject is \(config["filter_subject"]?.stringValue ?? "not set"), not \(subject)")
        }
        if config["ack_policy"]?.stringValue != "explicit" { wrong.append("ack_policy is not explicit") }
        let most = config["max_deliver"]?.intValue ?? -1
        if most > 0 {
            wrong.append("max_deliver is \(most): after that many deliveries a message is never given out again")
        }
        guard !wrong.isEmpty else { return [] }
        return [
            Finding(
                .consumers,
                .error,
                "consumer_differs",
                "\(consumer.name) of \(consumer.stream) is not as it must be",
                evidence: wrong.joined(separator: "; "),
                advice: "remove it: whoever owns it makes it anew at once",
                repair: .remakeConsumer(stream: consumer.stream, name: consumer.name)
            )
        ]
    }

    private static func judgePlace(_ consumer: ConsumerInfo, end: UInt64?) -> [Finding] {
        guard let end, consumer.deliveredStreamSequence > end else { return [] }
        return [
            Finding(
                .consumers,
                .error,
                "consumer_ahead",
                "\(consumer.name) of \(consumer.stream) stands behind the end of its stream and gets nothing",
                evidence: "it was given sequence \(consumer.deliveredStreamSequence), the stream ends at "
                    + "\(end): the stream was put back to an older state",
                advice: "remove it: whoever owns it makes it anew at once; then maestroctl reconcile",
                repair: .remakeConsumer(stream: consumer.stream, name: consumer.name)
            )
        ]
    }

    private static func judgeForeign(_ consumer: ConsumerInfo, _ names: PoolNames) -> Finding? {
        // A card whose worker has ended keeps its consumer, and nobody is harmed by it.
        if consumer.stream == names.runStream, consumer.name.hasPrefix("GPU_RUN_") { return nil }
        return Finding(
            .consumers,
            .warning,
            "consumer_foreign",
            "somebody else reads \(consumer.stream) and takes jobs out of it",
            evidence: "consumer \(consumer.name) with \(consumer.ackPending) messages in hand",
            advice: "find out whose it is; look at jobs with maestroctl, or at gpu.task.state.*"
        )
    }

    private static func judgeMissing(
        _ name: String,
        _ subject: String,
        _ pool: PoolFacts,
        _ names: PoolNames
    ) -> [Finding] {
        let stream = name == names.enqueueConsumer ? names.workQueueStream : names.runStream
        guard pool.streams[stream] != nil else { return [] }
        // Without its owner it is missed by nobody: the owner makes it when it begins.
        let gpu = pool.registrations.keys.first { names.runConsumer($0) == name }
        let hasOwner = gpu.map { pool.registrations[$0].map { pool.heard[$0.incarnation] != nil } ?? false }
        guard hasOwner ?? (pool.leader != nil) else { return [] }
        return [
            Finding(
                .consumers,
                .error,
                "consumer_missing",
                "\(name) of \(stream) is missing: nothing on \(subject) is taken",
                evidence:
                    "\(gpu.map { "the worker of card \($0)" } ?? "the leading maestro") lives, and the server does not "
                    + "know its consumer",
                advice: "restart \(gpu.map { "gpu-worker@\($0)" } ?? "maestro"): it makes its consumer anew"
            )
        ]
    }

    private static func judgeAdmission(_ facts: Facts, _ pool: PoolFacts, _ names: PoolNames) -> [Finding] {
        guard let leader = pool.leader, !leader.isQueueFull,
            let consumer = facts.consumers.first(where: { $0.name == names.enqueueConsumer })
        else { return [] }
        if let later = facts.later[key(consumer)], mayBeStuck(later),
            later.deliveredStreamSequence == consumer.deliveredStreamSequence
        {
            return [
                Finding(
                    .consumers,
                    .error,
                    "consumer_stuck",
                    "nobody pulls submissions, though a maestro leads and has room",
                    evidence:
                        "\(later.pending) submissions wait, no pull request stands, \(later.ackPending) are in hand",
                    advice: "remove the consumer: the leader makes it anew and pulls again; else restart maestro",
                    repair: .remakeConsumer(stream: consumer.stream, name: consumer.name)
                )
            ]
        }
        guard let age = facts.oldestSubmission, age > pool.claimPatience else { return [] }
        return [
            Finding(
                .consumers,
                .warning,
                "submission_stuck",
                "a submission has been in maestro's hands for \(Printable.duration(age)) and is not settled",
                evidence: "the first message of \(consumer.stream); \(consumer.ackPending) are in hand",
                advice: "look at the log of the leading maestro: its record cannot be stored or read"
            )
        ]
    }

    private static func judgeRuns(
        _ facts: Facts,
        _ pool: PoolFacts,
        _ names: PoolNames,
        now: Double
    ) -> [Finding] {
        pool.registrations.sorted { $0.key < $1.key }.compactMap { gpu, registration in
            guard pool.isHeard(registration.incarnation, now: now), let worker = pool.heard[registration.incarnation],
                let consumer = facts.consumers.first(where: { $0.name == names.runConsumer(gpu) }),
                let later = facts.later[key(consumer)], mayBeStuck(later),
                later.deliveredStreamSequence == consumer.deliveredStreamSequence,
                !worker.heartbeat.isDraining, worker.heartbeat.running.count < worker.heartbeat.slots,
                later.ackPending == 0
            else { return nil }
            return Finding(
                .consumers,
                .warning,
                "consumer_stuck",
                "the worker of card \(gpu) has a free slot and does not pull what waits for it",
                evidence: "\(later.pending) run messages wait, no pull request stands",
                advice: "remove the consumer: the worker makes it anew and pulls again; else restart gpu-worker@\(gpu)",
                repair: .remakeConsumer(stream: consumer.stream, name: consumer.name)
            )
        }
    }

    static func summary(_ facts: Facts) -> String {
        let waiting = facts.consumers.reduce(0) { $0 + $1.pending }
        let held = facts.consumers.reduce(0) { $0 + $1.ackPending }
        return "\(Printable.count(facts.consumers.count, "consumer")), \(waiting) messages wait, \(held) in hand"
    }
}
