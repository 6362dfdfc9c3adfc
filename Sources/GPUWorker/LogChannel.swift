/// One output of an attempt on its way to the bus: what waits, and what had to be left out.
///
/// Bounded: what does not fit is left out, all of it until what waits has been taken, so that a gap is one gap.
struct LogChannel: Sendable {
    /// Bytes that may wait.
    static let bufferLimit = 256 << 10
    /// Bytes of one piece; escaped as JSON it stays below the largest message.
    static let pieceLimit = 64 << 10

    struct Piece: Sendable, Equatable {
        let offset: UInt64
        /// Bytes right before it that were left out.
        let skippedBefore: UInt64
        let bytes: [UInt8]
        /// Nothing of this output follows.
        let isLast: Bool
    }

    private let limit: Int
    /// Output that waits, from `offset` on.
    private var buffer: [UInt8] = []
    private var offset: UInt64 = 0
    /// Bytes taken into the buffer so far.
    private var accepted = 0
    /// Bytes before `offset` that were left out and not yet told.
    private var skippedBefore: UInt64 = 0
    /// Bytes behind the buffer that were left out.
    private var skippedBehind: UInt64 = 0
    /// The last piece was taken.
    private var isClosed = false

    /// - Parameter limit: bytes that are sent at most.
    init(limit: Int) { self.limit = limit }

    mutating func append(_ bytes: ArraySlice<UInt8>) {
        let fits = buffer.count + bytes.count <= Self.bufferLimit && accepted + bytes.count <= limit
        guard fits, skippedBehind == 0 else {
            skippedBehind += UInt64(bytes.count)
            return closeGap()
        }
        buffer.append(contentsOf: bytes)
        accepted += bytes.count
    }

    /// The next piece to send; nil when there is none.
    /// - Parameter isEnding: no more will be appended.
    mutating func take(isEnding: Bool) -> Piece? {
        let count = pieceLength(isEnding: isEnding)
        // An output that there was ends with a piece that says so, be it an empty one.
        let mustClose = isEnding && !isClosed && offset + UInt64(buffer.count) > 0
        guard count > 0 || mustClose else { return nil }
        isClosed = isEnding && count == buffer.count && skippedBehind == 0
        let piece = Piece(
            offset: offset,
            skippedBefore: skippedBefore,
            bytes: Array(buffer[..<count]),
            isLast: isClosed
        )
        buffer.removeFirst(count)
        offset += UInt64(count)
        skippedBefore = 0
        closeGap()
        return piece
    }

    /// A piece that was taken could not be sent.
    mutating func putBackAsGap(_ piece: Piece) {
        skippedBefore += piece.skippedBefore + UInt64(piece.bytes.count)
    }

    /// Whether there is a piece to take while more may come.
    var hasPiece: Bool { pieceLength(isEnding: false) > 0 }

    /// How many bytes the next piece holds: whole characters, unless nothing follows that could complete the last.
    private func pieceLength(isEnding: Bool) -> Int {
        let count = min(buffer.count, Self.pieceLimit)
        return isEnding && count == buffer.count ? count : count - Self.unfinishedBytes(buffer[..<count])
    }

    private mutating func closeGap() {
        guard buffer.isEmpty else { return }
        offset += skippedBehind
        skippedBefore += skippedBehind
        skippedBehind = 0
    }

    /// How many bytes at the end begin a character that goes on in the next piece.
    private static func unfinishedBytes(_ bytes: ArraySlice<UInt8>) -> Int {
        for (distance, byte) in bytes.suffix(3).reversed().enumerated() {
            let length = byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : byte >= 0xC0 ? 2 : 1
            if length > 1 { return length > distance + 1 ? distance + 1 : 0 }
            if byte < 0x80 { return 0 }
        }
        return 0
    }
}
