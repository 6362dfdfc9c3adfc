import JobModel
import JobTransport
import Testing

@Suite("Revisions that come back to who wrote them") struct RecordEchoesTests {
    private var ids = IdentifierSource(seed: 3)

    private mutating func write(_ id: String, size: Int = 0) throws -> EncodedRecord {
        let padding = String(repeating: "x", count: size)
        return EncodedRecord(
            JobRecord(
                admitting: try #require(JobID(id)),
                submission: Array(#"{"cmd":["true","\#(padding)"]}"#.utf8),
                digest: "sha256:00",
                order: 7,
                limits: JobLimits(timeout: .seconds(60), maxRetries: 2, retryBackoff: .seconds(1), maxWait: nil),
                op: OperationID(from: &ids),
                at: Timestamp(nanoseconds: 1_700_000_000_123_456_789),
                submitted: 1.5
            )
        )
    }

    @Test mutating func theSameBytesAreTheRecordThatWasSent() throws {
        let echoes = RecordEchoes()
        let ours = try write("a")
        echoes.expect(ours, after: 0)
        #expect(echoes.take(ours.bytes, of: ours.record.id, at: 9) == ours.record)
        #expect(try JobRecord(parsing: ours.bytes) == ours.record, "what is not read is what reading would give")
        #expect(echoes.take(ours.bytes, of: ours.record.id, at: 9) == nil, "an echo comes once; again, it is read")
        #expect(echoes.count == 0)
    }

    @Test mutating func otherBytesHaveToBeRead() throws {
        let echoes = RecordEchoes()
        let (ours, theirs, other) = (try write("a"), try write("a"), try write("b"))
        #expect(ours.bytes.count == theirs.bytes.count, "they differ in the mark of the write alone")
        echoes.expect(ours, after: 0)
        #expect(echoes.take(other.bytes, of: other.record.id, at: 8) == nil)
        #expect(echoes.count == 1)
        #expect(echoes.take(theirs.bytes, of: theirs.record.id, at: 9) == nil)
        #expect(echoes.count == 0, "a revision after the one that ours was made from: ours does not come any more")
    }

    @Test mutating func anEarlierRevisionThatComesLateChangesNothing() throws {
        let echoes = RecordEchoes()
        let (ours, earlier) = (try write("a"), try write("a"))
        echoes.expect(ours, after: 9)
        #expect(echoes.take(earlier.bytes, of: earlier.record.id, at: 9) == nil)
        #expect(echoes.take(ours.bytes, of: ours.record.id, at: 10) == ours.record)
    }

    @Test mutating func aWriteThatWasGivenUpIsForgottenUnlessAnotherFollowed() throws {
        let echoes = RecordEchoes()
        let (first, second) = (try write("a"), try write("a"))
        echoes.expect(first, after: 0)
        echoes.forget(first.record)
        #expect(echoes.count == 0)
        echoes.expect(first, after: 0)
        echoes.expect(second, after: 0)
        echoes.forget(first.record)
        #expect(echoes.take(second.bytes, of: second.record.id, at: 1) == second.record)
    }

    @Test mutating func noMoreIsKeptThanTheLimitAllows() throws {
        let writes = try (0..<50).map { try write("job-\($0)", size: 1000) }
        let size = writes[0].bytes.count
        let echoes = RecordEchoes(limit: 20 * size + size / 2)
        for write in writes { echoes.expect(write, after: 0) }
        #expect(echoes.count == 20)
        let last = writes[49]
        #expect(echoes.take(last.bytes, of: last.record.id, at: 1) == nil, "it is read like anybody's")
        for (index, write) in writes.prefix(20).enumerated() {
            #expect(echoes.take(write.bytes, of: write.record.id, at: UInt64(index + 1)) == write.record)
        }
        echoes.expect(last, after: 0)
        #expect(echoes.count == 1, "there is room again")
    }
}
