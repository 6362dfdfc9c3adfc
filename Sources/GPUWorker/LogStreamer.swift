import JobModel
import JobTransport
import Logging
import NATSClient
import Synchronization

/// Brings the output of one attempt to ORG_LOGS while it runs.
///
/// Output is gathered and sent in pieces, one piece under way at a time, so that a chatty job makes few messages and
/// the order is kept. What the bus cannot take in time, or what goes beyond the limit, is skipped, and the next piece
/// says how much; all of it is in the files under LOG_ROOT.
final class LogStreamer: Sendable {
    /// Bytes of each stream that may wait to be sent, and the size of one piece.
    private static let bufferLimit = 256 << 10
    private static let pieceLimit = 64 << 10

    private struct Channel {
        /// Output that waits, from `offset` on.
        var buffer: [UInt8] = []
        var offset: UInt64 = 0
        /// Bytes taken into the buffer so far.
        var accepted = 0
        /// Bytes before `offset` that were skipped and not yet told.
        var skippedBefore: UInt64 = 0
        /// The last piece was taken.
        var isClosed = false
        /// Bytes behind the buffer that were skipped: taken over once the buffer is empty, so that a gap is one gap.
        var skippedBehind: UInt64 = 0

        mutating func append(_ bytes: ArraySlice<UInt8>, limit: Int) {
            let fits = buffer.count + bytes.count <= LogStreamer.bufferLimit && accepted + bytes.count <= limit
            guard fits, skippedBehind == 0 else {
                skippedBehind += UInt64(bytes.count)
                return closeGap()
            }
            buffer.append(contentsOf: bytes)
            accepted += bytes.count
        }

        /// The next piece to send; nil when there is none.
        mutating func take(isEnding: Bool) -> (offset: UInt64, skipped: UInt64, bytes: [UInt8])? {
            let count = pieceLength(isEnding: isEnding)
            // A stream that had output ends with a piece that says so, be it an empty one.
            let mustClose = isEnding && !isClosed && offset + UInt64(buffer.count) > 0
            guard count > 0 || mustClose else { return nil }
            isClosed = isEnding && count == buffer.count
            let piece = (offset, skippedBefore, Array(buffer[..<count]))
            buffer.removeFirst(count)
            offset += UInt64(count)
            skippedBefore = 0
            closeGap()
            return piece
        }

        /// How many bytes the next piece holds: whole characters, unless nothing follows that could complete the last.
        func pieceLength(isEnding: Bool) -> Int {
            let count = min(buffer.count, LogStreamer.pieceLimit)
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

    private struct State {
        var standardOutput = Channel()
        var standardError = Channel()
        var isEnding = false
        var waiter: CheckedContinuation<Void, Never>?

        subscript(stream: LogChunk.Stream) -> Channel {
            get { stream == .standardOutput ? standardOutput : standardError }
            set { if stream == .standardOutput { standardOutput = newValue } else { standardError = newValue } }
        }
    }

    private let jetStream: JetStream
    private let subject: String
    private let job: JobID
    private let attempt: AttemptID
    private let limit: Int
    private let now: @Sendable () -> Timestamp
    private let logger: Logger
    private let state = Mutex(State())

    /// - Parameter limit: bytes of each stream that are sent at most.
    init(
        _ jetStream: JetStream,
        names: PoolNames,
        job: JobID,
        attempt: AttemptID,
        limit: Int,
        now: @escaping @Sendable () -> Timestamp,
        logger: Logger
    ) {
        self.jetStream = jetStream
        subject = names.log(job)
        self.job = job
        self.attempt = attempt
        self.limit = limit
        self.now = now
        self.logger = logger
    }

    /// Takes output as it comes; never waits.
    func append(_ stream: LogChunk.Stream, _ bytes: ArraySlice<UInt8>) {
        let waiter = state.withLock { state in
            state[stream].append(bytes, limit: limit)
            return state.waiter.take()
        }
        waiter?.resume()
    }

    /// No more output comes; ``run()`` sends the rest and returns.
    func end() {
        let waiter = state.withLock { state in
            state.isEnding = true
            return state.waiter.take()
        }
        waiter?.resume()
    }

    /// Sends until ``end()`` was called and everything is acknowledged, or the task is cancelled.
    func run() async {
        while !Task.isCancelled {
            let (piece, isEnding) = state.withLock { state in (Self.next(&state), state.isEnding) }
            if let piece {
                await send(piece)
            } else if isEnding {
                return
            } else {
                await more()
            }
        }
    }

    private static func next(_ state: inout State) -> (LogChunk.Stream, UInt64, UInt64, [UInt8], Bool)? {
        for stream in LogChunk.Stream.allCases {
            guard let piece = state[stream].take(isEnding: state.isEnding) else { continue }
            return (stream, piece.offset, piece.skipped, piece.bytes, state[stream].isClosed)
        }
        return nil
    }

    private func send(_ piece: (stream: LogChunk.Stream, offset: UInt64, skipped: UInt64, bytes: [UInt8], isLast: Bool))
        async
    {
        let chunk = LogChunk(
            job: job,
            attempt: attempt,
            stream: piece.stream,
            offset: piece.offset,
            skippedBytes: piece.skipped,
            text: String(decoding: piece.bytes, as: UTF8.self),
            isLast: piece.isLast,
            time: now().seconds
        )
        let outcome = await jetStream.publishUntilDefinite(
            chunk.encoded(),
            to: subject,
            messageID: "log:\(attempt):\(piece.stream.rawValue):\(piece.offset)",
            until: .now + .seconds(30)
        )
        switch outcome {
        case .stored: break
        case .refused(let error):
            logger.warning(
                "output was not taken by the bus; it is in the file",
                metadata: ["job": "\(job)", "error": "\(error)"]
            )
        case .unknown(let error):
            logger.warning(
                "output was not sent in time; it is in the file",
                metadata: ["job": "\(job)", "error": "\(error)"]
            )
        }
    }

    /// Waits until something was appended or the end was told.
    private func more() async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isReady = state.withLock { state in
                    let hasMore =
                        state.isEnding
                        || LogChunk.Stream.allCases.contains { state[$0].pieceLength(isEnding: false) > 0 }
                    guard !hasMore, !Task.isCancelled else { return true }
                    state.waiter = continuation
                    return false
                }
                if isReady { continuation.resume() }
            }
        } onCancel: {
            end()
        }
    }
}
