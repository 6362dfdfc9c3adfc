/// Why a card may take no job now. Found anew for each placement, so it holds no words: those are made when somebody asks.
enum Objection: Sendable, Equatable {
    /// Its worker was not heard of.
    case gone
    /// Its worker is about to stop.
    case stopping
    case quarantined
    case cordoned
    /// Its worker says no.
    case held
    /// Above the limit, and not cooled down since.
    case hot
    /// Somebody else keeps it busy.
    case busy
    /// As many cards work as may at this time of the day.
    case limited
    /// On probation, and it has its one job.
    case probation

    /// The card has its jobs, and takes the next when one of them ends.
    var isForWantOfRoom: Bool { self == .probation }

    /// What was bound to the card and not claimed is taken back.
    var takesBack: Bool {
        switch self {
        case .quarantined, .cordoned, .held, .hot: true
        // A worker that stops or goes is seen to by its heartbeats; the others do not concern what is bound already.
        case .gone, .stopping, .busy, .limited, .probation: false
        }
    }
}
