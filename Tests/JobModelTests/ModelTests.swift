import Testing
import WireJSON

import JobModel

@Suite struct ModelTests {
    @Test func generatedIDsSortByTime() throws {
        var ids = IdentifierSource(seed: 3)
        let times: [Int64] = [0, 1_000_000, 1_700_000_000_000_000_000, 1_800_000_000_000_000_000]
        let made = times.map { JobID.generated(at: Timestamp(nanoseconds: $0), from: &ids) }
        #expect(made == made.sorted())
        #expect(Set(made.map(\.text.utf8.count)) == [26])
    }

    @Test func derivedIDsRepeatAndAreTokens() throws {
        let id = JobID.derived(timestamp: 1_700_000_000_000_000_001, sequence: 9)
        #expect(id.text == "task-1700000000000000001-9")
        #expect(JobID(id.text) == id)
    }

    @Test func theSameSeedGivesTheSameChance() {
        var a = IdentifierSource(seed: 9)
        var b = IdentifierSource(seed: 9)
        #expect((0..<50).map { _ in a.hexadecimal() } == (0..<50).map { _ in b.hexadecimal() })
        #expect((0..<1000).allSatisfy { _ in (0..<1).contains(a.unit()) })
    }

    @Test(arguments: [("3", JSON.number("3")), ("rig1-3", "rig1-3"), ("03", "03"), ("-3", "-3")])
    func cardIDsAreNumbersOrNames(text: String, json: JSON) throws {
        let gpu = try #require(GPUID(text))
        #expect(gpu.json == json)
        #expect(GPUID(json) == gpu)
    }

    @Test func cardsSortByNumberThenName() throws {
        let ids = try ["10", "b-1", "2", "a-1"].map { try #require(GPUID($0)) }
        #expect(ids.sorted().map(\.text) == ["2", "10", "a-1", "b-1"])
    }

    @Test func backoffDoublesWithinItsLimits() {
        let limits = JobLimits(timeout: .seconds(1), maxRetries: 30, retryBackoff: .seconds(1), maxWait: nil)
        func delay(_ failures: Int, _ chance: Double) -> Double? {
            RetryPolicy.delay(afterFailure: failures, limits: limits, chance: chance)?.inSeconds
        }
        #expect(delay(1, 0.5) == 1)
        #expect(delay(2, 0.5) == 2)
        #expect(delay(4, 0) == 6.4)
        #expect(delay(30, 0.5) == 300)
        #expect(delay(31, 0.5) == nil)
    }

    @Test func aHeartbeatSurvivesTheWire() throws {
        var ids = IdentifierSource(seed: 4)
        let beat = Heartbeat(
            gpu: try #require(GPUID("1")),
            incarnation: Incarnation(from: &ids),
            counter: 12,
            slots: 2,
            running: [.init(job: try #require(JobID("a")), attempt: AttemptID(from: &ids))],
            isDraining: true,
            time: 1.5
        )
        #expect(try Heartbeat(parsing: beat.encoded()) == beat)
    }

    @Test(arguments: [
        "", "{}", #"{"gpu_id":1}"#, #"{"gpu_id":1,"incarnation":"a","counter":1,"slots":0}"#,
        #"{"gpu_id":1,"incarnation":"a","counter":1,"slots":1,"running":["x"],"attempts":[]}"#,
    ])
    func malformedHeartbeatsAreRefused(text: String) {
        #expect(throws: MalformedMessage.self) { try Heartbeat(parsing: Array(text.utf8)) }
    }

    @Test func impossibleReadingsCountAsUnread() throws {
        let text = #"{"gpu_id":1,"incarnation":"a","gpu_busy_percent":140,"temp_c":511}"#
        let reading = try CardReading(parsing: Array(text.utf8))
        #expect(reading.busyPercent == nil)
        #expect(reading.temperature == nil)
    }

    @Test func controlRecordsSurviveTheWire() throws {
        var ids = IdentifierSource(seed: 5)
        let lease = LeaderLease(
            holder: Incarnation(from: &ids),
            host: "h",
            processID: 7,
            duration: .seconds(5),
            isReleased: true,
            op: OperationID(from: &ids)
        )
        #expect(try LeaderLease(parsing: lease.encoded()) == lease)
        let registration = WorkerRegistration(
            gpu: try #require(GPUID("2")),
            incarnation: Incarnation(from: &ids),
            host: "h",
            bootID: "b",
            processID: 8,
            isReleased: false,
            facts: ["kind": "gpu", "pci": "0000:03:00.0"],
            op: OperationID(from: &ids)
        )
        #expect(try WorkerRegistration(parsing: registration.encoded()) == registration)
    }

    @Test func outputKeepsItsTailAndSaysWhatIsMissing() {
        let output = AttemptReport.Output(bytes: Array(repeating: 0x61, count: 10), totalBytes: 20)
        #expect(output.isTruncated)
        let binary = AttemptReport.Output(bytes: [0xFF, 0x61], totalBytes: 2)
        #expect(binary.isBinary && !binary.isTruncated && binary.text == "\u{FFFD}a")
        let long = AttemptReport.Output(bytes: Array(String(repeating: "ü", count: 3000).utf8), totalBytes: 6000)
        #expect(long.tail == String(repeating: "ü", count: 1024))
    }

    @Test func eventsNameWhatHappened() throws {
        var ids = IdentifierSource(seed: 6)
        let report = AttemptReport(
            job: try #require(JobID("j")),
            gpu: try #require(GPUID("0")),
            attempt: AttemptID(from: &ids),
            tries: 1,
            ran: true,
            outcome: AttemptOutcome(code: .exit, reason: "exit status 3", returnCode: 3),
            standardOutput: .init(bytes: Array("OK\n".utf8), totalBytes: 3),
            workingDirectory: "/c",
            type: "shell",
            time: 2
        )
        let done = try JSON(parsing: report.doneEvent())
        #expect(done["stdout"] == "OK\n")
        #expect(done["gpu_id"] == 0)
        let error = try JSON(parsing: report.errorEvent(state: .retry))
        #expect(error["will_retry"] == true)
        #expect(error["data"]?["returncode"] == 3)
        let result = try JSON(parsing: report.resultEvent(state: .failed))
        #expect(result["ok"] == false)
        #expect(result["code"] == "exit")
        #expect(result["data"]?["stdout"] == "OK\n")
    }

    @Test func logChunksSurviveTheWire() throws {
        var ids = IdentifierSource(seed: 7)
        let chunk = LogChunk(
            job: try #require(JobID("j")),
            attempt: AttemptID(from: &ids),
            stream: .standardError,
            offset: 5,
            skippedBytes: 2,
            text: "x",
            isLast: true,
            time: 3
        )
        #expect(try LogChunk(parsing: chunk.encoded()) == chunk)
    }

    @Test func timestampsSaturate() {
        let late = Timestamp(nanoseconds: .max - 5)
        #expect(late + .seconds(1) == Timestamp(nanoseconds: .max))
        #expect(Timestamp(nanoseconds: 5) - Timestamp(nanoseconds: 2) == .nanoseconds(3))
        #expect(Duration.inSeconds(1e300).wholeNanoseconds == .max)
    }
}
