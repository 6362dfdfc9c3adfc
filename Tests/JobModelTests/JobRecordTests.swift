import Testing
import WireJSON

import JobModel

@Suite struct JobRecordTests {
    private var ids = IdentifierSource(seed: 1)
    private let now = Timestamp(nanoseconds: 1_700_000_000_000_000_000)
    private let limits = JobLimits(timeout: .seconds(60), maxRetries: 2, retryBackoff: .seconds(1), maxWait: nil)

    private mutating func admitted() throws -> JobRecord {
        JobRecord(
            admitting: try #require(JobID("job")),
            submission: Array(#"{ "cmd" : ["true"] , "later": {"x":1.0} }"#.utf8),
            digest: "sha256:00",
            order: 7,
            limits: limits,
            op: OperationID(from: &ids),
            at: now,
            submitted: 1.5
        )
    }

    private mutating func step(_ record: inout JobRecord, _ transition: JobTransition) throws {
        try record.apply(transition, op: OperationID(from: &ids), at: now)
    }

    private mutating func schedule(_ record: inout JobRecord) throws {
        let gpu = try #require(GPUID("3"))
        try step(
            &record,
            .schedule(gpu: gpu, attempt: AttemptID(from: &ids), owner: Incarnation(from: &ids))
        )
    }

    @Test mutating func everyRevisionSurvivesTheWire() throws {
        var record = try admitted()
        var revisions = [record]
        func keep() { revisions.append(record) }
        try schedule(&record)
        keep()
        try step(&record, .claim)
        keep()
        let outcome = AttemptOutcome(code: .exit, reason: "exit status 3", returnCode: 3, standardErrorTail: "no\n")
        try step(&record, .retry(outcome, delay: .milliseconds(1250)))
        keep()
        try step(&record, .requeue)
        try schedule(&record)
        try step(&record, .claim)
        try step(&record, .requestCancel(reason: "by hand"))
        keep()
        try step(&record, .cancel(reason: "by hand", outcome))
        keep()
        for revision in revisions { #expect(try JobRecord(parsing: revision.encoded()) == revision) }
        #expect(record.tries == 2)
        #expect(record.failures == 2)
    }

    /// Who wrote a record need not read it when it comes back: reading gives the same.
    @Test func whateverIsWrittenIsReadTheSame() throws {
        var records = RandomRecords(seed: 11)
        for record in try (0..<500).flatMap({ _ in try records.life() }) {
            let read = try JobRecord(parsing: record.encoded())
            if read != record { Issue.record("\(record) was read as \(read)") }
        }
    }

    @Test mutating func theSubmissionKeepsItsBytes() throws {
        let record = try admitted()
        #expect(try JobRecord(parsing: record.encoded()).submission == record.submission)
        #expect(try record.task().command == .arguments(["true"]))
    }

    @Test mutating func unknownFieldsSurviveARewrite() throws {
        var text = String(decoding: try admitted().encoded(), as: UTF8.self)
        text.removeLast()
        text += #","from_the_future":{"a":[1.50,"ü"]}}"#
        var record = try JobRecord(parsing: Array(text.utf8))
        try schedule(&record)
        let again = String(decoding: record.encoded(), as: UTF8.self)
        #expect(again.contains(#""from_the_future":{"a":[1.50,"ü"]}"#))
    }

    @Test mutating func aLostAttemptCostsNoRetry() throws {
        var record = try admitted()
        try schedule(&record)
        try step(&record, .claim)
        try step(&record, .lose(reason: "worker gone"))
        #expect(record.state == .enqueued)
        #expect((record.tries, record.lost, record.failures) == (1, 1, 0))
    }

    @Test mutating func terminalRecordsRefuseEveryStep() throws {
        let outcome = AttemptOutcome(code: .exit)
        for end in [JobTransition.cancel(reason: "", nil), .fail(outcome)] {
            var record = try admitted()
            try step(&record, end)
            let frozen = record
            let all: [JobTransition] = [
                .takeBack(reason: ""), .waitForCard(reason: ""), .cardsBack, .claim, .finish(outcome), .fail(outcome),
                .retry(outcome, delay: .zero), .requeue, .lose(reason: ""), .requestCancel(reason: ""),
                .cancel(reason: "", nil), .reject(outcome),
            ]
            for transition in all {
                #expect(throws: IllegalTransition.self) {
                    try record.apply(transition, op: OperationID(from: &ids), at: now)
                }
            }
            #expect(record == frozen)
        }
    }

    @Test func everyStepIsInTheStateMachine() throws {
        let outcome = AttemptOutcome()
        let gpu = try #require(GPUID("0"))
        var ids = IdentifierSource(seed: 2)
        let schedule = JobTransition.schedule(gpu: gpu, attempt: AttemptID(from: &ids), owner: Incarnation(from: &ids))
        let all: [JobTransition] = [
            schedule, .takeBack(reason: ""), .waitForCard(reason: ""), .cardsBack, .claim, .finish(outcome),
            .fail(outcome), .retry(outcome, delay: .zero), .requeue, .lose(reason: ""), .requestCancel(reason: ""),
            .cancel(reason: "", nil), .reject(outcome),
        ]
        var reached: [JobState: Set<JobState>] = [:]
        for transition in all {
            for source in transition.sources { reached[source, default: []].insert(transition.target) }
        }
        for state in JobState.allCases { #expect(reached[state, default: []] == state.successors, "\(state)") }
    }

    @Test(arguments: [
        "", "[]", "{}", #"{"task_id":"a"}"#, #"{"task_id":"a","state":"flying","op":"b"}"#,
        #"{"task_id":"a.b","state":"done","op":"b"}"#, #"{"task_id":"a","state":"scheduled","op":"b"}"#,
        #"{"task_id":"a","state":"done","op":"b","tries":-1}"#,
        #"{"task_id":"a","state":"done","op":"b","timeout":"x"}"#,
    ])
    func malformedRecordsAreRefused(text: String) {
        #expect(throws: MalformedMessage.self) { try JobRecord(parsing: Array(text.utf8)) }
    }

    @Test mutating func runMessagesCarryTheRecordAndItsSequence() throws {
        var record = try admitted()
        try schedule(&record)
        let message = RunMessage(record: record, sequence: 42)
        #expect(try RunMessage(parsing: message.encoded(), enqueueSubject: "q") == message)
    }

    @Test mutating func aMessageThatNobodyDispatchedNamesTheRightSubject() throws {
        let record = try admitted()
        let texts = [
            #"{"cmd":["true"]}"#, "x", "{}",
            String(decoding: RunMessage(record: record, sequence: 1).encoded(), as: UTF8.self),
        ]
        for text in texts {
            let error = #expect(throws: MalformedMessage.self) {
                try RunMessage(parsing: Array(text.utf8), enqueueSubject: "gpu.task.enqueue")
            }
            #expect(error?.reason.contains("gpu.task.enqueue") == true)
        }
    }
}
