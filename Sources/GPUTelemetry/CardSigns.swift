/// What tells whether a card is sick, as far as it could be looked at; nil where it could not.
package struct CardSigns: Sendable, Equatable {
    /// The directory of the PCI device is there.
    package var isPresent = true
    /// The vendor id in the card's configuration space: 0xffff when the card does not answer.
    package var configVendor: UInt16?
    /// The configuration space could be opened and held nothing.
    package var isConfigEmpty = false
    /// amdgpu's count of resets that lost the contents of VRAM.
    package var vramLostCounter: UInt32?
    package var isAccelerationWorking: Bool?
    /// The driver no longer answers on the card's node: the errno.
    package var driverError: Int32?
    /// The code with which NVML refuses the card; nil when it answers or is not used.
    package var nvmlCode: Int32?
    package var hasCoreDump = false
    /// Lanes in use.
    package var linkWidth: Int?
    /// The XID events since the last look.
    package var xids: [UInt64] = []

    package init() {}
}
