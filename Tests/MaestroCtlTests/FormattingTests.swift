import JobModel
import JobTransport
import NATSClient
import Testing

@testable import MaestroCtl

@Suite("What people see")
struct FormattingTests {
    private let plain = Paint(isOn: false)

    @Test func aTableAlignsItsColumnsAndCutsTheLastOne() {
        var table = Table(titles: "JOB", ">TRIES", "RUNS")
        table.add(["a", "1", "short"])
        table.add(["long-name", "12", Table.Cell(String(repeating: "x", count: 200))])
        let lines = table.lines(width: 40, paint: plain)
        #expect(lines[0] == "JOB        TRIES  RUNS")
        #expect(lines[1] == "a              1  short")
        #expect(lines[2].count == 40)
        #expect(lines[2].hasSuffix("x…"))
    }

    @Test func theWidestOfTheElasticColumnsIsCutFirst() {
        var table = Table(titles: "CARD", "~MODEL", "~JOB", ">SINCE")
        table.add(["0", "a rather long model", Table.Cell(String(repeating: "j", count: 40)), "5.00s"])
        let line = table.lines(width: 40, paint: plain)[1]
        #expect(line == "0     a rather lo…  jjjjjjjjjjjj…  5.00s")
        #expect(line.count == 40)
    }

    @Test func aLastColumnMayGoOnInFurtherLines() {
        var table = Table(titles: "CARD", "BECAUSE")
        table.add(["7", "hot: 81 °C, from 78 °C on it gets no job"])
        let lines = table.lines(width: 26, paint: plain, overflow: .wrapped)
        #expect(lines == ["CARD  BECAUSE", "7     hot: 81 °C, from 78", "      °C on it gets no job"])
    }

    @Test func anIdIsNeverCut() {
        var table = Table(titles: "JOB", "RUNS")
        let id = String(repeating: "j", count: 128)
        table.add([Table.Cell(id), "true"])
        #expect(table.lines(width: 80, paint: plain)[1].hasPrefix(id))
    }

    @Test func textFromOutsideCannotMoveTheCursor() {
        #expect(Table.Cell("a\u{1B}[2J\nb\u{9B}c").text == "a [2J b c")
    }

    @Test(arguments: [
        (0, "0.00s"), (0.254, "0.25s"), (9.996, "10.0s"), (59.96, "1m00s"), (245, "4m05s"), (3599.6, "1h00m"),
        (11_520, "3h12m"), (792_000, "9d04h"), (-1, "0.00s"), (.nan, "?"),
    ])
    func durationsAreShort(_ seconds: Double, _ text: String) {
        #expect(Printable.duration(seconds) == text)
    }

    @Test(arguments: [
        (0, "0 B"), (999, "999 B"), (1500, "1.5 kB"), (25_000_000, "25 MB"), (3_000_000_000_000, "3.0 TB"),
    ])
    func sizesAreShort(_ bytes: UInt64, _ text: String) {
        #expect(Printable.bytes(bytes) == text)
    }

    @Test(arguments: [
        (12.345, 1, "12.3"), (-0.04, 1, "0.0"), (-2.5, 1, "-2.5"), (7, 0, "7"), (0.05, 2, "0.05"), (1e300, 1, "1e+300"),
        (.infinity, 0, "inf"), (.nan, 2, "nan"),
    ])
    func numbersHaveFixedDigits(_ number: Double, _ digits: Int, _ text: String) {
        #expect(Printable.fixed(number, digits) == text)
    }

    @Test func colourIsOnlyWhereItIsWanted() {
        #expect(Paint(isOn: true)("x", .red) == "\u{1B}[31mx\u{1B}[0m")
        #expect(Paint(isOn: true)("x", nil) == "x")
        #expect(plain("x", .red) == "x")
    }

    @Test func theProgressBarFitsOneLine() {
        let line = Progress.line(5, 2, 10, plain)
        #expect(line.hasPrefix(String(repeating: "█", count: 20) + "·"))
        #expect(line.hasSuffix(" 5/10, 2 not done"))
        #expect(line.count <= 80)
    }

    @Test(arguments: [("ls", "ls"), ("a b", "'a b'"), ("", "''"), ("it's", "'it'\\''s'"), ("--x=1,2", "--x=1,2")])
    func wordsAreQuotedAsAShellNeedsThem(_ word: String, _ text: String) {
        #expect(JobText.shellWord(word) == text)
    }

    @Test(arguments: [("90", 90.0), ("1.5h", 5400), ("10m", 600), ("2d", 172_800), ("0s", 0)])
    func timeSpansAreRead(_ text: String, _ seconds: Double) throws {
        #expect(try #require(TimeSpan(argument: text)).seconds == seconds)
    }

    @Test(arguments: ["", "soon", "-1", "h", "1w", "inf", "nan"])
    func otherTextIsNoTimeSpan(_ text: String) {
        #expect(TimeSpan(argument: text) == nil)
    }
}

@Suite("The newest of many jobs")
struct NewestJobsTests {
    private func job(_ number: Int) throws -> StoredRecord {
        var source = IdentifierSource(seed: UInt64(number))
        let record = JobRecord(
            admitting: try #require(JobID("job-\(number)")),
            submission: Array("{\"cmd\":[\"true\"]}".utf8),
            digest: "sha256:x",
            order: UInt64(number),
            limits: .none,
            op: OperationID(from: &source),
            at: Timestamp(nanoseconds: 0),
            submitted: Double(number)
        )
        return try StoredRecord(
            StoredMessage(
                subject: "s",
                sequence: UInt64(number),
                timestamp: 0,
                headers: [:],
                payload: record.encoded()
            )
        )
    }

    @Test func onlyTheNewestAreKeptInOrder() throws {
        var newest = NewestJobs(limit: 3)
        for number in (0..<500).map({ $0 * 7919 % 500 }) { newest.add(try job(number)) }
        #expect(newest.jobs.map(\.record.id.text) == ["job-499", "job-498", "job-497"])
        #expect(newest.left == 497)
    }

    @Test func withoutALimitAllAreKept() throws {
        var newest = NewestJobs(limit: .max)
        for number in 0..<300 { newest.add(try job(number)) }
        #expect(newest.jobs.count == 300)
        #expect(newest.left == 0)
    }

    @Test func theListNamesWhatRuns() throws {
        let lines = ListCommand.table([try job(7)], now: 17).lines(width: 80, paint: Paint(isOn: false))
        #expect(lines[1].contains("job-7  enqueued  -         0  10.0s  true"))
    }
}
