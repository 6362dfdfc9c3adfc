import Testing

@testable import GPUWorker

/// What readers of a job's output see, whatever the bus and the job do.
struct LogChannelTests {
    private func take(_ channel: inout LogChannel, ending: Bool = false) -> [LogChannel.Piece] {
        var pieces: [LogChannel.Piece] = []
        while let piece = channel.take(isEnding: ending) { pieces.append(piece) }
        return pieces
    }

    private func bytes(_ text: String) -> ArraySlice<UInt8> { Array(text.utf8)[...] }

    /// Each piece begins where the one before ended, but for what it says was left out.
    private func expectWhole(_ pieces: [LogChannel.Piece], total: UInt64) {
        var end: UInt64 = 0
        for piece in pieces {
            #expect(piece.offset == end + piece.skippedBefore)
            end = piece.offset + UInt64(piece.bytes.count)
        }
        #expect(end == total)
        #expect(pieces.map(\.isLast) == pieces.indices.map { $0 == pieces.count - 1 })
    }

    @Test func outputComesInOrderAndEndsOnce() {
        var channel = LogChannel(limit: 1000)
        channel.append(bytes("one"))
        var pieces = take(&channel)
        channel.append(bytes("two"))
        channel.append(bytes("three"))
        pieces += take(&channel)
        pieces += take(&channel, ending: true)
        #expect(pieces.map { String(decoding: $0.bytes, as: UTF8.self) } == ["one", "twothree", ""])
        expectWhole(pieces, total: 11)
    }

    @Test func whatWaitsAtTheEndIsTheLastPiece() {
        var channel = LogChannel(limit: 1000)
        channel.append(bytes("OK\n"))
        let pieces = take(&channel, ending: true)
        #expect(pieces == [LogChannel.Piece(offset: 0, skippedBefore: 0, bytes: Array("OK\n".utf8), isLast: true)])
    }

    @Test func anOutputThatNeverWasHasNoPieces() {
        var channel = LogChannel(limit: 1000)
        #expect(take(&channel, ending: true).isEmpty)
    }

    @Test func charactersAreNotCutInTwo() {
        var channel = LogChannel(limit: 1 << 20)
        let text = String(repeating: "aé€😀", count: 20_000)
        for byte in text.utf8 { channel.append([byte][...]) }
        var pieces = take(&channel)
        pieces += take(&channel, ending: true)
        #expect(pieces.count > 3)
        #expect(pieces.allSatisfy { String(validating: $0.bytes, as: UTF8.self) != nil })
        expectWhole(pieces, total: UInt64(text.utf8.count))
    }

    @Test(arguments: [[0x61, 0xC3], [0xE2, 0x82], [0xF0, 0x9F, 0x98], [0x80, 0x80, 0x80, 0x80], [0xFF]])
    func whatNeverBecomesACharacterComesAtTheEnd(_ tail: [UInt8]) {
        var channel = LogChannel(limit: 1000)
        channel.append(tail[...])
        let pieces = take(&channel) + take(&channel, ending: true)
        #expect(pieces.flatMap(\.bytes) == tail)
        expectWhole(pieces, total: UInt64(tail.count))
    }

    @Test func whatTheBusDoesNotTakeInTimeIsOneGap() {
        var channel = LogChannel(limit: 1 << 30)
        let block = [UInt8](repeating: 0x61, count: 100_000)[...]
        for _ in 0..<5 { channel.append(block) }
        var pieces = take(&channel)
        channel.append(block)
        pieces += take(&channel)
        pieces += take(&channel, ending: true)
        #expect(pieces.reduce(0) { $0 + $1.skippedBefore } == 300_000)
        #expect(pieces.count { $0.skippedBefore > 0 } == 1)
        expectWhole(pieces, total: 600_000)
    }

    @Test func aGapAtTheEndIsToldToo() {
        var channel = LogChannel(limit: 5)
        channel.append(bytes("12345"))
        channel.append(bytes("678"))
        let pieces = take(&channel, ending: true)
        #expect(pieces.map(\.skippedBefore) == [0, 3])
        expectWhole(pieces, total: 8)
    }

    @Test func beyondTheLimitNothingIsSent() {
        var channel = LogChannel(limit: 0)
        channel.append(bytes("12345"))
        #expect(take(&channel).isEmpty)
        expectWhole(take(&channel, ending: true), total: 5)
    }

    @Test func aPieceThatWasNotSentIsAGapOfTheNext() throws {
        var channel = LogChannel(limit: 1000)
        channel.append(bytes("one"))
        let lost = channel.take(isEnding: false)
        channel.putBackAsGap(try #require(lost))
        channel.append(bytes("two"))
        let pieces = take(&channel, ending: true)
        #expect(pieces.map(\.skippedBefore) == [3])
        expectWhole(pieces, total: 6)
    }
}
