mod cases;
mod differential;
mod environment;
