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
    private struct State {
        var standardOutput: LogChannel
        var standardError: LogChannel
        var isEnding = false
        var waiter: CheckedContinuation<Void, Never>?
        /// Sends what is there; begun with the first output, since most jobs of a sweep write none.
        var sending: Task<Void, Never>?

        subscript(stream: LogChunk.Stream) -> LogChannel {
            get { stream == .standardOutput ? standardOutput : standardError }
            set { if stream == .standardOutput { standardOutput = newValue } else { standardError = newValue } }
        }
    }

    private let jetStream: JetStream
    private let subject: String
    private let job: JobID
    private let attempt: AttemptID
    private let now: @Sendable () -> Timestamp
    private let logger: Logger
    private let state: Mutex<State>

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
        self.now = now
        self.logger = logger
        state = Mutex(State(standardOutput: LogChannel(limit: limit), standardError: LogChannel(limit: limit)))
    }

    /// Takes output as it comes; never waits.
    func append(_ stream: LogChunk.Stream, _ bytes: ArraySlice<UInt8>) {
        let waiter = state.withLock { state in
            state[stream].append(bytes)
            if state.sending == nil { state.sending = Task { await run() } }
            return state.waiter.take()
        }
        waiter?.resume()
    }

    /// Returns when everything is acknowledged, after ``end()``.
    func finish() async { await state.withLock { $0.sending }?.value }

    /// No more output comes; what waits is sent.
    func end() {
        let waiter = state.withLock { state in
            state.isEnding = true
            return state.waiter.take()
        }
        waiter?.resume()
    }

    /// Sends until ``end()`` was called and everything is acknowledged, or the task is cancelled.
    private func run() async {
        while !Task.isCancelled {
            let (next, isEnding) = state.withLock { state in (Self.next(&state), state.isEnding) }
            if let (stream, piece) = next {
                await send(stream, piece)
            } else if isEnding {
                return
            } else {
                await more()
            }
        }
    }

    private static func next(_ state: inout State) -> (LogChunk.Stream, LogChannel.Piece)? {
        for stream in LogChunk.Stream.allCases {
            if let piece = state[stream].take(isEnding: state.isEnding) { return (stream, piece) }
        }
        return nil
    }

    private func send(_ stream: LogChunk.Stream, _ piece: LogChannel.Piece) async {
        let chunk = LogChunk(
            job: job,
            attempt: attempt,
            stream: stream,
            offset: piece.offset,
            skippedBytes: piece.skippedBefore,
            text: String(decoding: piece.bytes, as: UTF8.self),
            isLast: piece.isLast,
            time: now().seconds
        )
        let outcome = await jetStream.publishUntilDefinite(
            chunk.encoded(),
            to: subject,
            messageID: "log:\(attempt):\(stream.rawValue):\(piece.offset)",
            until: .now + .seconds(30)
        )
        switch outcome {
        case .stored: break
        case .refused(let error): leaveOut(stream, piece, "\(error)")
        case .unknown(let error): leaveOut(stream, piece, "\(error)")
        }
    }

    /// The next piece tells of this one, which the bus has not taken; it is in the file.
    private func leaveOut(_ stream: LogChunk.Stream, _ piece: LogChannel.Piece, _ reason: String) {
        logger.warning("output was not taken by the bus", metadata: ["job": "\(job)", "error": "\(reason)"])
        state.withLock { $0[stream].putBackAsGap(piece) }
    }

    /// Waits until something was appended or the end was told.
    private func more() async {
        await withTaskCancellationHandler {
            await withCheckedContinuation { continuation in
                let isReady = state.withLock { state in
                    let hasMore =
                        state.isEnding
                        || LogChunk.Stream.allCases.contains { state[$0].hasPiece }
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
