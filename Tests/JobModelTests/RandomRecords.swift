import JobModel
import Testing

/// Records as a pool may hold them, with every part that one can have, at random.
struct RandomRecords {
    private var ids: IdentifierSource

    init(seed: UInt64) { ids = IdentifierSource(seed: seed) }

    /// All revisions of one job, from its admission on.
    mutating func life() throws -> [JobRecord] {
        var record = try ids.next() % 8 == 0 ? refused() : admitted()
        var revisions = [record]
        for _ in 0..<30 where !record.state.isTerminal {
            let possible = try steps().filter { $0.sources.contains(record.state) }
            try record.apply(#require(possible.randomElement(using: &ids)), op: OperationID(from: &ids), at: time())
            revisions.append(record)
        }
        return revisions
    }

    private mutating func admitted() throws -> JobRecord {
        let record = JobRecord(
            admitting: JobID.generated(at: time(), from: &ids),
            submission: submission(),
            digest: "sha256:" + ids.hexadecimal(),
            order: ids.next(),
            limits: limits(),
            op: OperationID(from: &ids),
            at: time(),
            submitted: time().seconds
        )
        guard ids.next() % 3 == 0 else { return record }
        // As a newer version may have written it.
        let unknown = #","from_the_future":{"a":[1.50,"ü\n"],"b":null},"x":-0.0,"y":"\u00e9\ud83d\udc1f"}"#
        return try JobRecord(parsing: record.encoded().dropLast() + Array(unknown.utf8))
    }

    private mutating func refused() -> JobRecord {
        JobRecord(
            refusing: JobID.generated(at: time(), from: &ids),
            state: ids.next() % 2 == 0 ? .rejected : .cancelled,
            outcome: outcome(),
            submission: [],
            digest: "",
            order: 0,
            op: OperationID(from: &ids),
            at: time(),
            submitted: time().seconds
        )
    }

    private mutating func steps() throws -> [JobTransition] {
        let gpu = try #require(GPUID(["0", "11", "007", "rig1-3", "-0"].randomElement(using: &ids) ?? ""))
        return [
            .schedule(gpu: gpu, attempt: AttemptID(from: &ids), owner: Incarnation(from: &ids)),
            .takeBack(reason: text()), .waitForCard(reason: text()), .cardsBack, .claim, .claim,
            .finish(outcome()), .fail(outcome()), .retry(outcome(), delay: duration(upTo: 300)),
            .retry(outcome(), delay: duration(upTo: 300)), .requeue, .lose(reason: text()),
            .requestCancel(reason: text()), .cancel(reason: text(), ids.next() % 2 == 0 ? outcome() : nil),
            .reject(outcome()),
        ]
    }

    private mutating func outcome() -> AttemptOutcome {
        let isAlone = ids.next() % 4 == 0
        return AttemptOutcome(
            code: FailureCode.allCases.randomElement(using: &ids).flatMap { isAlone ? nil : $0 },
            reason: text(),
            returnCode: isAlone ? nil : Int.random(in: -64...255, using: &ids),
            standardOutputTail: text(),
            standardErrorTail: text(),
            duration: isAlone ? nil : duration(upTo: 31_622_400)
        )
    }

    private mutating func limits() -> JobLimits {
        JobLimits(
            timeout: duration(upTo: TaskLimits.timeout.upperBound),
            maxRetries: Int.random(in: TaskLimits.maxRetries, using: &ids),
            retryBackoff: duration(upTo: 60),
            maxWait: ids.next() % 2 == 0 ? duration(upTo: TaskLimits.timeout.upperBound) : nil,
            fence: ids.next() % 2 == 0 ? Fence(duration(upTo: 600)) : nil
        )
    }

    /// As a task or a worker tells one: seconds with fractions.
    private mutating func duration(upTo seconds: Double) -> Duration {
        .inSeconds(Double.random(in: 0...seconds, using: &ids))
    }

    private mutating func time() -> Timestamp {
        Timestamp(nanoseconds: 1_700_000_000_000_000_000 + Int64.random(in: 0..<1_000_000_000_000_000, using: &ids))
    }

    private mutating func text() -> String {
        let scalars: [Unicode.Scalar] = [
            "a", "\"", "\\", "/", "\n", "\r", "\t", "\0", "\u{7F}", "\u{1F}", "ü", "🐟", "\u{FFFD}", "\u{2028}",
            "\u{301}",
        ]
        var text = String.UnicodeScalarView()
        for _ in 0..<(ids.next() % 12) { text.append(scalars.randomElement(using: &ids) ?? "a") }
        return String(text)
    }

    private mutating func submission() -> [UInt8] {
        let texts = [
            #"{"cmd":["true"]}"#, #" { "cmd" : ["a\u0041"] , "later": {"x":1.0, "y":[ ]} }"#, "{\"cmd\":[\"true\"]}\n",
            "\r\n\t{\"type\":\"shell\",\"shell\":\"echo 'ü'\"} ",
        ]
        return Array((texts.randomElement(using: &ids) ?? "").utf8)
    }
}
